"""The frames of one run, while it is going on."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from petif_bluesky.documents.assets import Assets
from petif_bluesky.documents.descriptors import Detector, ImageKey, Stream
from petif_bluesky.documents.file_series import PassedOver, Series
from petif_bluesky.documents.frame import Frame
from petif_bluesky.documents.reported_names import tiffs_told, trusted
from petif_bluesky.documents.selection import OWN_STREAMS, FrameSelection
from petif_bluesky.documents.stream_resources import Span, StreamFiles
from petif_bluesky.documents.uris import sameness
from petif_bluesky.text_set import TextSet
from tango_server.conversion.errors import UnfitPathError

Document = Mapping[str, Any]

_MOST_WAITING = 1000


class _Found(NamedTuple):
    """The files of one image key for one event."""

    stream: Stream
    image: ImageKey
    paths: list[str]


class _Waiting(NamedTuple):
    """What an event shows of a detector by a datum that is not known yet."""

    stream: Stream
    detector: Detector
    event: Document


class RunFrames:
    """Takes what a run shows, gives each file once; what it can't give, it tells.

    Frames of stream datums wait for the event that tells where the motors were, if there is one to come: the stream
    datum of a step scan comes before its event. Where the next stream datum comes before that event, none is waited
    for any more.
    """

    def __init__(self, uid: str, selection: FrameSelection, assets: Assets, tell: Callable[[str], None]) -> None:
        self.uid = uid
        self._selection = selection
        self._assets = assets
        self._tell_all = tell
        self._told: set[str] = set()
        self._taken = TextSet()
        self._replaced: set[str] = set()
        """Predicted files in whose place others were told."""
        self._waiting: dict[str, list[_Waiting]] = {}
        self._early: dict[tuple[str, int], list[_Found]] = {}
        self._without_resource: dict[str, list[tuple[Stream, Span]]] = {}
        self._flying: set[str] = set()
        self._last_events: dict[str, Document] = {}
        self._passed_keys: set[str] = set()
        self._own_keys: set[str] = set()
        assets.open(uid)

    def describe(self, stream: Stream, data_keys: Iterable[str]) -> None:
        """Take note of what a descriptor describes."""
        if any(fnmatchcase(stream.name, own) for own in OWN_STREAMS):
            self._own_keys.update(data_keys)
        else:
            self._own_keys.difference_update(data_keys)

    def is_ours(self, data_key: str) -> bool:
        """Tell whether a data key is of converted images alone: there is a resource for each of them, always more."""
        return data_key in self._own_keys

    def event(self, stream: Stream, event: Document) -> list[Frame]:
        """Return the frames that an event completes."""
        if not stream.detectors:
            return []
        self._last_events[stream.uid] = event
        early = self._early.pop((stream.uid, event["seq_num"]), [])
        return [
            frame
            for detector in stream.detectors
            for frame in self._shown(
                stream, detector, event, [found for found in early if found.image in detector.images]
            )
        ]

    def datum_came(self, datum_id: str) -> list[Frame]:
        """Return the frames of events that have waited for a datum."""
        return [frame for waiting in self._waiting.pop(datum_id, ()) for frame in self._shown(*waiting, [])]

    def resource_came(self, resource_uid: str) -> list[Frame]:
        """Return the frames of events and stream datums that have waited for a resource."""
        late = self._without_resource.pop(resource_uid, [])
        frames = [frame for stream, span in late for frame in self.stream_datum(stream, resource_uid, span)]
        known = [datum_id for datum_id in self._waiting if self._assets.datum(datum_id, self.uid) is not None]
        return frames + [frame for datum_id in known for frame in self.datum_came(datum_id)]

    def stream_datum(self, stream: Stream, resource_uid: str, span: Span) -> list[Frame]:
        """Return the frames that a stream datum completes, and those whose events did not come before it."""
        if not stream.detectors:
            return []
        files = self._assets.files(resource_uid)
        if files is None:
            self._wait_for(resource_uid, self._without_resource, (stream, span))
            return []
        if not isinstance(files, StreamFiles):
            self._pass_over(files)
            return []
        chosen = stream.image(files.data_key)
        if chosen is None:
            return []
        _, image = chosen
        series = files.series(image.described)
        overtaken = self._overtaken(stream, span)
        if self._waits(stream, span):
            found = _Found(stream, image, self._here(series.paths(span.first)))
            self._early.setdefault((stream.uid, span.seq_num(span.first)), []).append(found)
            return overtaken
        return overtaken + [
            frame
            for index in span.indices
            for frame in self._frames(stream, span.seq_num(index), image, self._here(series.paths(index)))
        ]

    def stop(self) -> list[Frame]:
        """Return the frames that have waited in vain, as far as their files are known; tell of the others."""
        frames = self._release(list(self._early))
        for datum_id, events in self._waiting.items():
            for waiting in events:
                frames += self._named_only(*waiting)
            self._tell(f"the datum {datum_id} was never announced: its frames are converted only if events name them")
        for resource_uid, late in self._without_resource.items():
            count = sum(len(span.indices) for _, span in late)
            self._tell(
                f"the stream resource {resource_uid} was never announced: {count} of its points are not converted"
            )
        self._assets.close(self.uid)
        return frames

    def _shown(self, stream: Stream, detector: Detector, event: Document, early: list[_Found]) -> list[Frame]:
        found = list(early)
        for image in detector.images:
            datum_id = event["data"].get(image.name)
            if image.in_stream or not isinstance(datum_id, str):
                continue
            known = self._assets.datum(datum_id, self.uid)
            if known is None:
                self._early_again(stream, event, early)
                self._wait_for(datum_id, self._waiting, _Waiting(stream, detector, event))
                return []
            files, point = known
            if isinstance(files, Series):
                found.append(_Found(stream, image, self._here(files.paths(point))))
            else:
                self._pass_over(files)
        if not found:
            return self._named_only(stream, detector, event)
        return list(self._corrected(stream, detector, event, found))

    def _early_again(self, stream: Stream, event: Document, early: list[_Found]) -> None:
        if early:
            self._early.setdefault((stream.uid, event["seq_num"]), []).extend(early)

    def _corrected(self, stream: Stream, detector: Detector, event: Document, found: list[_Found]) -> Iterator[Frame]:
        """Yield the frames under the names that the event tells, where it does."""
        told = self._here(tiffs_told(event["data"], detector.name_keys).values())
        for _, image, paths in found:
            true = paths
            if len(paths) == 1:
                same = sameness(paths[0])
                shown_again = same in self._taken or same in self._replaced
                taken = () if shown_again else self._taken
                true = [trusted(paths[0], told, taken, alone=len(found) == 1)]
                if true != paths:
                    self._replaced.add(same)
            yield from self._frames(stream, event["seq_num"], image, true, event)

    def _named_only(self, stream: Stream, detector: Detector, event: Document) -> list[Frame]:
        """Return the frames of a detector that tells nothing but names."""
        if any(image.in_stream and image.name not in self._passed_keys for image in detector.images):
            return []
        return [
            frame
            for key, path in tiffs_told(event["data"], detector.name_keys).items()
            for frame in self._frames(stream, event["seq_num"], key, self._here([path]), event)
        ]

    def _frames(
        self, stream: Stream, seq_num: int, image: ImageKey | str, paths: list[str], event: Document | None = None
    ) -> Iterator[Frame]:
        """Yield the frames whose files were not taken yet."""
        data_key, shape = (image, None) if isinstance(image, str) else (image.name, image.shape)
        if event is None:
            last = self._last_events.get(stream.uid)
            event = last if last is not None and last["seq_num"] == seq_num else None
        for number, path in enumerate(paths):
            same = sameness(path)
            if not self._taken.add(same):
                continue
            yield Frame(path, self.uid, stream.name, seq_num, data_key, number, shape, stream.uid, event)

    def _waits(self, stream: Stream, span: Span) -> bool:
        """Tell whether an event is to come that tells more of the frames of a stream datum."""
        if not stream.has_events_of_its_own or len(span.indices) != 1 or stream.uid in self._flying:
            return False
        last = self._last_events.get(stream.uid)
        return last is None or last["seq_num"] < span.first_seq_num

    def _overtaken(self, stream: Stream, span: Span) -> list[Frame]:
        """Return the frames that still wait for their event while later ones come."""
        earlier = [key for key in self._early if key[0] == stream.uid and key[1] < span.first_seq_num]
        if earlier:
            self._flying.add(stream.uid)
        return self._release(earlier)

    def _release(self, keys: list[tuple[str, int]]) -> list[Frame]:
        return [
            frame
            for key in keys
            for found in self._early.pop(key)
            for frame in self._frames(found.stream, key[1], found.image, found.paths)
        ]

    def _here(self, paths: Iterable[str]) -> list[str]:
        here = []
        for path in paths:
            try:
                here.append(self._selection.here(path))
            except UnfitPathError as error:
                self._tell(f"a frame is not converted: {error}")
        return here

    def _wait_for(self, missing: str, waiting: dict[str, list[Any]], item: Any) -> None:
        if sum(map(len, waiting.values())) < _MOST_WAITING:
            waiting.setdefault(missing, []).append(item)
        else:
            self._tell(
                f"more than {_MOST_WAITING} points wait for documents that never came; later ones are not converted"
            )

    def _pass_over(self, files: object) -> None:
        if isinstance(files, PassedOver):
            self._passed_keys.add(files.data_key)
            self._tell(f"images are passed over: {files.reason}")

    def _tell(self, what: str) -> None:
        """Tell something once."""
        if what not in self._told and len(self._told) < _MOST_WAITING:
            self._told.add(what)
            self._tell_all(f"run {self.uid}: {what}")
