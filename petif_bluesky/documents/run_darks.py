"""Recognise the dark images of one run, and collect what determines the dark of its frames."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from petif_bluesky.documents.darks import Dark, Light
from petif_bluesky.documents.descriptors import Descriptor, Detector
from petif_bluesky.documents.detector_settings import DetectorSettings, SettingsReader
from petif_bluesky.documents.file_series import FramePlace
from petif_bluesky.documents.points import Point
from petif_bluesky.documents.selection import FrameSelection

Document = Mapping[str, Any]


class RunDarks:
    """The darks of one run: all its images if the start document has `dark_frame: true`, else as `selection` says.

    bluesky-darkframes makes a second dark event when a setting has changed, but a descriptor keeps the configuration of
    its first event. From the second dark event on, configurations may therefore be outdated: within the run, those of
    dark and frame are still equal, but they say nothing to other runs.

    Parameters
    ----------
    uid: uid of the run
    selection: which images are dark
    take: called with each dark

    """

    def __init__(self, uid: str, selection: FrameSelection, take: Callable[[Dark], object]) -> None:
        self._uid = uid
        self._selection = selection
        self._take = take
        self._settings = SettingsReader()
        self._all_dark = False
        self._named_run = ""
        self._began = 0.0
        self._described_after: dict[str, int] = {}
        """By descriptor: the number of the document before it."""
        self._dark_events: dict[str, list[int]] = {}
        """By detector: the numbers of the events in dark streams."""

    def begin(self, start: Document) -> None:
        """Process the start document."""
        self._all_dark = start.get("dark_frame") is True
        self._named_run = named_dark_run(start)
        self._began = float(start.get("time", 0.0))

    def describe(self, document: Document, order: int) -> None:
        """Process a descriptor; `order` is the number of the document before it."""
        self._described_after[document["uid"]] = order
        self._settings.describe(document)

    def is_dark(self, descriptor: Descriptor, detector: Detector, data_key: str) -> bool:
        """Return whether the images of a data key are dark."""
        return self._all_dark or self._selection.is_dark(descriptor.stream, data_key, detector.name)

    def converts(self, descriptor: Descriptor, detector: Detector, data_key: str) -> bool:
        """Return whether the images of a data key are selected for conversion, and not only known as darks."""
        return self._selection.takes(descriptor.stream, data_key, detector.name)

    def add(self, point: Point, data_key: str, shape: tuple[int, int] | None, places: Sequence[FramePlace]) -> None:
        """Add the dark images of a point; those in files of several frames cannot be used."""
        settings, outdated = self._settings_of(point, data_key, shape)
        detector = self._selection.detector_of_dark(data_key, point.detector.name)
        if not self._selection.is_dark_stream(point.descriptor.stream) and not self._all_dark:
            settings = replace(settings, data_key="")  # that of a separate dark detector
        own_files = [path for path, index in places if index is None]
        unfit = next((f"{path}#{index}" for path, index in places if index is not None), "")
        self._add(point, replace(settings, detector=detector), own_files, outdated=outdated, unfit=unfit)

    def add_without_files(self, point: Point) -> None:
        """Add a dark event of a detector whose files are not known."""
        owner = point.detector.name
        keys = [image.name for image in point.detector.images] or [owner]
        dark = next((key for key in keys if self.is_dark(point.descriptor, point.detector, key)), None)
        if dark is not None:
            self._add(point, DetectorSettings(self._selection.detector_of_dark(dark, owner)), ())

    def light(self, point: Point, data_key: str, shape: tuple[int, int] | None) -> Light:
        """Return what determines the dark of a frame."""
        settings, outdated = self._settings_of(point, data_key, shape)
        time = None if point.event is None else _time_of(point.event, data_key)
        return Light(self._uid, settings, time, point.order, self._named_run, outdated)

    def _add(
        self, point: Point, settings: DetectorSettings, paths: Sequence[str], *, outdated: bool = False, unfit: str = ""
    ) -> None:
        if self._selection.is_dark_stream(point.descriptor.stream):
            events = self._dark_events.setdefault(point.detector.name, [])
            place = bisect_left(events, point.order)
            if events[place : place + 1] != [point.order]:
                events.insert(place, point.order)
        time = self._began if point.event is None else _time_of(point.event, settings.data_key)
        self._take(Dark(self._uid, settings, tuple(paths), time, point.order, self._all_dark, outdated, unfit))

    def _settings_of(self, point: Point, data_key: str, shape: tuple[int, int] | None) -> tuple[DetectorSettings, bool]:
        """Return the settings of an image, and whether they may be outdated."""
        uid = point.descriptor.uid
        events = self._dark_events.get(point.detector.name, [])
        before = bisect_left(events, point.order)
        first = 0 if self._selection.is_dark_stream(point.descriptor.stream) else 1  # says nothing about other streams
        changed = before > first and events[before - 1] > self._described_after[uid]
        settings, configured = self._settings.of(uid, data_key, shape, point.event)
        if data_key in point.detector.name_keys:
            settings = replace(settings, data_key="")
        return settings, changed and configured


def named_dark_run(start: Document) -> str:
    """Return the run of darks that a start document names, as those of xpdAcq do; "" if there is none."""
    uid = start.get("sc_dk_field_uid")
    return uid if isinstance(uid, str) else ""


def _time_of(event: Document, data_key: str) -> float:
    """Return the time of a reading, which may be earlier than that of its event."""
    return float(event.get("timestamps", {}).get(data_key, event["time"]))
