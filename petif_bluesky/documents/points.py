"""Match the images of a detector with the event that has the motor positions.

However a frame is announced, and in whatever order, it becomes a reference, and references become a point:

    resource, datum, event  ─┐
    their pages             ─┼─>  Reference  ─>  Point  (one detector, one event; the event may be missing)
    stream resource, datum  ─┘
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from petif_bluesky.documents.assets import Assets, Files
from petif_bluesky.documents.descriptors import Descriptor, Detector, ImageKey
from petif_bluesky.documents.file_series import DatumPoint, FrameFiles, FramePlace, PassedOver

Document = Mapping[str, Any]

_MOST_WAITING = 1000
_KEPT_EVENTS = 10_000
_MOST_IN_DOCUMENT = 1_000_000
"""Frames of one stream datum."""


class Reference(NamedTuple):
    """The frames of one image key in one event."""

    image: ImageKey
    files: FrameFiles
    point: DatumPoint

    def places(self) -> list[FramePlace]:
        """Return where the frames are, as predicted by the documents."""
        return self.files.places(self.point, self.image.described)


@dataclass(slots=True)
class Point:
    """The images of one detector in one event."""

    descriptor: Descriptor
    detector: Detector
    seq_num: int
    event: Document | None = None
    order: int = 0
    """Number of its first document among those of all runs."""
    from_streams: list[Reference] = field(default_factory=list)
    from_datums: list[Reference] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    """Datums named in the event but not announced yet."""

    @property
    def key(self) -> tuple[str, str, int]:
        """Identifies the point within its run."""
        return self.descriptor.uid, self.detector.name, self.seq_num

    @property
    def references(self) -> list[Reference]:
        """The files known so far."""
        return self.from_streams + self.from_datums


@dataclass(slots=True)
class _Seen:
    """An event, and the image keys that have frames of it: a further frame belongs to an event yet to come."""

    event: Document
    order: int
    images: set[str] = field(default_factory=set)


class Points:
    """The points of one run that are waiting for documents. Each method returns the points that are ready.

    References of stream datums wait for their event, if one is expected: in a step scan, a stream datum comes before
    its event. If the next stream datum comes first, they stop waiting, unless `patient` is set: then they wait until
    the run stops. After a pause, a point may be taken again under its number: its frame waits for its new event.
    """

    def __init__(self, run_uid: str, assets: Assets, note: Callable[[str], None]) -> None:
        self.order = 0
        """Number of the current document among those of all runs."""
        self._run_uid = run_uid
        self._assets = assets
        self._note = note
        self._open: dict[tuple[str, str, int], Point] = {}
        self._unannounced: dict[str, list[tuple[Descriptor, range, int, int]]] = {}
        """By stream resource not announced yet: the indices covered by stream datums, the seq_num of the first, and the
        numbers of these documents."""
        self._events: dict[str, dict[int, _Seen]] = {}
        """The latest events of each descriptor; only the last one, unless `patient`."""
        self._flying: set[str] = set()
        self.patient = False
        self.passed_over: set[str] = set()
        """Images whose files are not converted."""

    def event(self, descriptor: Descriptor, event: Document) -> list[Point]:
        """Process an event."""
        if not descriptor.detectors:
            return []
        seq_num = event["seq_num"]
        events = self._events.setdefault(descriptor.uid, {})
        events.pop(seq_num, None)
        seen = events[seq_num] = _Seen(event, self.order)
        if len(events) > (_KEPT_EVENTS if self.patient else 1):
            del events[next(iter(events))]
        whole = []
        for detector in descriptor.detectors:
            point = Point(descriptor, detector, seq_num, order=self.order)
            if self._open:
                point = self._open.pop(point.key, point)
            point.event = event
            if not point.from_streams:  # else the frame was announced before its event
                point.order = self.order
            seen.images.update(reference.image.name for reference in point.from_streams)
            whole += self._settle(point)
        return whole

    def incomplete(self, descriptor: Descriptor, seq_num: int) -> list[Point]:
        """Return the points of an event that wait for datums."""
        waiting = (self._open.get((descriptor.uid, detector.name, seq_num)) for detector in descriptor.detectors)
        return [point for point in waiting if point is not None and point.missing] if self._open else []

    def stream_datum(
        self, descriptor: Descriptor, resource_uid: str, indices: range, first: int, *, order: int | None = None
    ) -> list[Point]:
        """Process a stream datum; `first` is the seq_num of the first index, `order` its number if it came earlier."""
        if not descriptor.detectors:
            return []
        order = self.order if order is None else order
        files = self._assets.files(resource_uid, self._run_uid)
        if files is None:
            if self._may_wait():
                self._unannounced.setdefault(resource_uid, []).append((descriptor, indices, first, order))
            return []
        chosen = descriptor.image(files.data_key)
        if chosen is None:
            return []
        detector, image = chosen
        if isinstance(files, PassedOver) or not files.fits(image.described):
            self._pass_over(files, image)
            return []
        _require_bounded(files, image, indices)
        whole = self._overtaken(descriptor, first)
        expected = self._expects_events(descriptor, image.name, len(indices), first)
        for seq_num, index in enumerate(indices, start=first):
            seen = self._event_of(descriptor, seq_num, image.name)
            event, first_order = (None, order) if seen is None else (seen.event, min(seen.order, order))
            point = Point(descriptor, detector, seq_num, event, first_order)
            if event is None and expected:
                point = self._open.setdefault(point.key, point)
            else:
                whole.append(point)
            point.from_streams.append(Reference(image, files, index))
        return whole

    def datum_came(self, datum_id: str) -> list[Point]:
        """Return the points that were waiting for a datum."""
        waiting = [point for point in self._open.values() if datum_id in point.missing] if self._open else []
        return [whole for point in waiting for whole in self._settle(point)]

    def resource_came(self, resource_uid: str) -> list[Point]:
        """Return the points that were waiting for a resource or stream resource."""
        late = self._unannounced.pop(resource_uid, [])
        whole = [
            point
            for descriptor, indices, first, order in late
            for point in self.stream_datum(descriptor, resource_uid, indices, first, order=order)
        ]
        waiting = [point for point in self._open.values() if point.missing]
        return whole + [settled for point in waiting for settled in self._settle(point)]

    def release(self) -> list[Point]:
        """Return the points that wait for their event only: there will be none."""
        released = [point for point in self._open.values() if not point.missing]
        for point in released:
            del self._open[point.key]
        return released

    def stop(self) -> list[Point]:
        """Return the points still waiting, as far as they are known; report what is missing."""
        left, self._open = list(self._open.values()), {}
        for datum_id in dict.fromkeys(datum_id for point in left for datum_id in sorted(point.missing)):
            self._note(
                f"datum {datum_id} was never announced: its frames are converted only if events name their files"
            )
        for resource_uid, late in self._unannounced.items():
            count = sum(len(indices) for _, indices, *_ in late)
            self._note(f"stream resource {resource_uid} was never announced: {count} points are not converted")
        return left

    @property
    def waiting(self) -> int:
        """Number of points that wait for further documents."""
        return len(self._open) + sum(len(indices) for late in self._unannounced.values() for _, indices, *_ in late)

    def _settle(self, point: Point) -> list[Point]:
        """Look up the datums named in a point's event; return the point if all are known, else keep it waiting."""
        point.from_datums, point.missing = [], set()
        data = point.event["data"] if point.event else {}
        for image in point.detector.images:
            datum_id = data.get(image.name)
            if image.in_stream or not isinstance(datum_id, str):
                continue
            known = self._assets.datum(datum_id, self._run_uid)
            if known is None:
                point.missing.add(datum_id)
                continue
            files, number = known
            if isinstance(files, PassedOver) or not files.fits(image.described):
                self._pass_over(files, image)
            else:
                point.from_datums.append(Reference(image, files, number))
        if not point.missing:
            self._open.pop(point.key, None)
            return [point]
        if point.key in self._open or self._may_wait():
            self._open[point.key] = point
        return []

    def _event_of(self, descriptor: Descriptor, seq_num: int, data_key: str) -> _Seen | None:
        """Return the event of a frame, None if it is yet to come."""
        seen = self._events.get(descriptor.uid, {}).get(seq_num)
        if seen is None or data_key in seen.images:
            return None
        seen.images.add(data_key)
        return seen

    def _expects_events(self, descriptor: Descriptor, data_key: str, count: int, first: int) -> bool:
        """Return whether an event is expected that adds to the frames of a stream datum."""
        if self.patient or not descriptor.has_events_of_its_own:
            return descriptor.has_events_of_its_own
        last, seen = next(iter(self._events.get(descriptor.uid, {}).items()), (0, None))
        follows = last < first or (seen is not None and data_key in seen.images)
        return count == 1 and descriptor.uid not in self._flying and follows

    def _overtaken(self, descriptor: Descriptor, seq_num: int) -> list[Point]:
        """Return the points still waiting for their event when stream datums of later ones have arrived."""
        if self.patient or not self._open:
            return []
        earlier = [
            point
            for point in self._open.values()
            if point.descriptor.uid == descriptor.uid and point.event is None and point.seq_num < seq_num
        ]
        for point in earlier:
            self._flying.add(descriptor.uid)
            del self._open[point.key]
        return earlier

    def _may_wait(self) -> bool:
        waiting = sum(bool(point.missing) for point in self._open.values())
        if waiting + sum(map(len, self._unannounced.values())) < _MOST_WAITING:
            return True
        self._note(f"more than {_MOST_WAITING} points are waiting for documents; further ones are not converted")
        return False

    def _pass_over(self, files: Files, image: ImageKey) -> None:
        self.passed_over.add(image.name)
        if len(image.described) == 1:  # one number or row per event: time stamps, attributes, encoders
            return
        described = list(image.described)
        why = f"their shape {described} is not that of a frame (rows, columns) or of several (frames, rows, columns)"
        self._note(
            f"images of {image.name} are not converted: {files.reason if isinstance(files, PassedOver) else why}"
        )


def _require_bounded(files: FrameFiles, image: ImageKey, indices: range) -> None:
    """Raise ValueError if a stream datum has more frames than fit into memory."""
    if len(indices) > 1:
        count = len(indices) * len(files.places(indices[0], image.described))
        if count > _MOST_IN_DOCUMENT:
            raise ValueError(f"{count} frames in one document (at most {_MOST_IN_DOCUMENT})")
