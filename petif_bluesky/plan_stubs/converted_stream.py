"""The stream `converted`: one event per frame of a run, with the converted image as external data.

Frames that were combined have one event, with the raw file, `frame` and `seq_num` of the first one; superseded frames
have none.

All events of a stream have an image, and all its images have the same structure, because a catalogue makes one array
of them. The first structure in a run is that of `converted`; frames with other structures go to `converted-2` and so
on, and frames without a converted file to `unconverted`. If the output is not TIFF, the event has no image.

Frames with an image come as events, the others in event pages: the RunEngine numbers all stream datums of one `collect`
alike, and each image has one of its own.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from bluesky.utils import Msg, NoReplayAllowed
from event_model import ComposeStreamResource, StreamRange

from petif_bluesky.documents.literal_uri import literal_uri
from petif_bluesky.documents.mime_types import MANY_TIFFS
from tango_server.messages import FrameReport

CONVERTED = "converted"
UNCONVERTED = "unconverted"
_TIFF = {".tif", ".tiff"}  # extensions that the readers of bluesky and Tiled accept, case-sensitive
_WITHOUT_EVENT = {"grouped", "superseded"}
_LONGEST_PAGE = 1000
"""Maximum number of frames in an event page, which bounds its memory."""


@dataclass(frozen=True, slots=True)
class StreamStructure:
    """The structure shared by the images of one stream; `uri` is that of their host."""

    pages: int
    rows: int
    columns: int
    dtype_numpy: str
    uri: str

    @property
    def shape(self) -> list[int]:
        """Shape of the image of one event."""
        return [self.pages, self.rows, self.columns]


def structure_of(report: FrameReport) -> StreamStructure | None:
    """Return the structure of a converted image, None if there is no image that a catalogue can open."""
    if report.output is None or report.shape is None or report.pixel_type is None:
        return None
    try:
        uri, _ = literal_uri(report.output)
    except ValueError:
        return None
    if PurePosixPath(report.output).suffix not in _TIFF:
        return None
    rows, columns = report.shape
    dtype = np.dtype(report.pixel_type).newbyteorder("<").str
    return StreamStructure(report.pages, rows, columns, dtype, uri)


def is_there(report: FrameReport) -> bool:
    """Return whether the frame has a converted file in this run."""
    return report.output is not None and report.outcome in {"converted", "placeholder"}


class FrameStream:
    """A stream with one event per frame, as a bluesky object.

    `show` sets the next page, `messages` emits it. Emitting the same page again, such as after a pause, emits the same
    documents.
    """

    parent = None
    longest_page = _LONGEST_PAGE

    def __init__(self, device: str, stream: str) -> None:
        self.name = device
        self.hints: dict[str, list[str]] = {"fields": []}  # otherwise BestEffortCallback would plot every field
        self.stream = stream
        unused = "output" if stream.startswith(UNCONVERTED) else "reason"
        self._keys = [key for key in _KEYS if key != unused]
        self._page: Sequence[FrameReport] = ()
        self.emitted = True
        """Whether the page has been emitted and a checkpoint made."""

    def show(self, page: Sequence[FrameReport]) -> None:
        """Make these frames the next page, at most `longest_page` of them."""
        self._page = page
        self.emitted = False

    def forget(self) -> None:
        """Drop the reports of the page: the RunEngine keeps objects until its call ends."""
        self._page = ()
        self.emitted = True

    def messages(self) -> Iterator[Msg]:
        """Yield the messages that emit the page."""
        raise NotImplementedError

    def _described(self) -> dict[str, dict[str, Any]]:
        return {f"{self.name}_{key}": {"source": "petif-bluesky", **_KEYS[key]} for key in self._keys}

    def _shown(self) -> Sequence[FrameReport]:
        if not self._page:
            raise RuntimeError(f"cannot read stream {self.stream}: no frame to show. Call show first.")
        return self._page


class PageStream(FrameStream):
    """A stream without images, emitted in event pages."""

    def __init__(self, device: str, stream: str) -> None:
        super().__init__(device, stream)
        self._declared = False

    def messages(self) -> Iterator[Msg]:
        """Yield `collect`, after `declare_stream` for the first page."""
        if not self._declared:
            yield Msg("declare_stream", None, self, name=self.stream, collect=True)
            self._declared = True
        yield Msg("collect", self, name=self.stream, return_payload=False)

    def describe_collect(self) -> dict[str, dict[str, Any]]:
        """Return the data keys."""
        return self._described()

    def collect_pages(self) -> Iterator[dict[str, Any]]:
        """Return the page, with the times when its frames were finished."""
        values = [_values_of(report) for report in self._shown()]
        finished = [report.finished for report in self._page]
        yield {
            "data": {f"{self.name}_{key}": [each[key] for each in values] for key in self._keys},
            "timestamps": {f"{self.name}_{key}": finished for key in self._keys},
        }

    def pause(self) -> None:
        """Raise bluesky's `NoReplayAllowed` between a page and its checkpoint, or it would be emitted twice."""
        if not self.emitted:
            raise NoReplayAllowed

    def resume(self) -> None:
        """Required by bluesky's protocol."""


class ImageStream(FrameStream):
    """A stream with the image of each frame: a readable object that also emits the asset documents of the image."""

    longest_page = 1

    def __init__(self, device: str, stream: str, structure: StreamStructure) -> None:
        super().__init__(device, stream)
        # One shared string: the RunEngine keeps it with each resource until the run ends.
        self._image = f"{device}_image"
        self._structure = structure
        self._index = -1

    def show(self, page: Sequence[FrameReport]) -> None:
        """Make this one frame the next reading."""
        super().show(page)
        self._index += 1

    def messages(self) -> Iterator[Msg]:
        """Yield plain messages: bluesky's plan stubs record their caller, which takes half of the time."""
        yield Msg("create", name=self.stream)
        yield Msg("read", self)
        yield Msg("save")

    def describe(self) -> dict[str, dict[str, Any]]:
        """Return the data keys."""
        image = {
            "source": "petif-bluesky",
            "dtype": "array",
            "dtype_numpy": self._structure.dtype_numpy,
            "shape": self._structure.shape,
            "external": "STREAM:",
        }
        return {**self._described(), self._image: image}

    def read(self) -> dict[str, dict[str, Any]]:
        """Return the reading of the frame, with the time when it was finished."""
        (report,) = self._shown()
        values = _values_of(report)
        return {f"{self.name}_{key}": {"value": values[key], "timestamp": report.finished} for key in self._keys}

    def collect_asset_docs(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Return the asset documents of the image; each image has its own resource, because names may have gaps.

        All resources of a stream have the same URI, with a literal path as template, because TiledWriter uses the URI
        of the first resource for all.
        """
        (report,) = self._shown()
        bundle = ComposeStreamResource()(
            mimetype=MANY_TIFFS,
            uri=self._structure.uri,
            data_key=self._image,
            parameters={
                "chunk_shape": self._structure.shape,
                "template": literal_uri(report.output or "")[1],
            },
            validate=False,
        )
        yield "stream_resource", bundle.stream_resource_doc
        yield (
            "stream_datum",
            bundle.compose_stream_datum(
                indices=StreamRange(start=self._index, stop=self._index + 1),
                seq_nums=StreamRange(start=0, stop=0),
                validate=False,
            ),
        )


def _values_of(report: FrameReport) -> dict[str, Any]:
    return {
        "raw": report.source,
        "output": report.output or "",
        "reason": report.reason,
        "seq_num": report.seq_num or 0,
        "frame": -1 if report.frame is None else report.frame,
        "stream": report.stream or "",
        "conversion_time": report.conversion_time,
        "latency": math.nan if report.latency is None else report.latency,
        "outcome": report.outcome,
    }


_TEXT = {"dtype": "string", "shape": []}
_SECONDS = {"dtype": "number", "dtype_numpy": "<f8", "shape": [], "units": "s", "precision": 4}
_NUMBER = {"dtype": "integer", "dtype_numpy": "<i8", "shape": []}
_KEYS: dict[str, dict[str, Any]] = {
    "raw": _TEXT,
    "output": _TEXT,
    "reason": _TEXT,
    "seq_num": _NUMBER,
    "frame": _NUMBER,
    "stream": _TEXT,
    "conversion_time": _SECONDS,
    "latency": _SECONDS,
    "outcome": _TEXT,
}


class ConvertedFrames:
    """The frame streams of one run; `named` returns the name of a stream, which depends on the converter."""

    def __init__(self, device: str, named: Callable[[str], str] = str) -> None:
        self._device = device
        self._named = named
        self._streams: dict[StreamStructure | None, FrameStream] = {}
        self._unconverted = PageStream(device, named(UNCONVERTED))

    def show(self, reports: Sequence[FrameReport], pending: deque[int]) -> FrameStream:
        """Return the stream of the first pending frame, showing a page: this frame and those after it in its stream.

        `pending` has the indices of at least one of the `reports`; those of the page are removed.
        """
        page = [reports[pending.popleft()]]
        stream = self._stream(page[0])
        while pending and len(page) < stream.longest_page:
            report = reports[pending[0]]
            if self._stream(report) is not stream:
                break
            page.append(report)
            pending.popleft()
        stream.show(page)
        return stream

    def forget(self) -> None:
        """The run has ended: drop its reports."""
        for stream in (self._unconverted, *self._streams.values()):
            stream.forget()

    def _stream(self, report: FrameReport) -> FrameStream:
        if not is_there(report):
            return self._unconverted
        structure = structure_of(report)
        if structure not in self._streams:
            number = len(self._streams) + 1
            name = CONVERTED if number == 1 else f"{CONVERTED}-{number}"
            place = self._device, self._named(name)
            self._streams[structure] = PageStream(*place) if structure is None else ImageStream(*place, structure)
        return self._streams[structure]


def in_order(reports: Sequence[FrameReport], places: range) -> list[int]:
    """Return the indices of reports, by stream in order of appearance, by event, by frame."""
    streams: dict[str | None, list[tuple[int, int, int]]] = {}
    for place in places:
        report = reports[place]
        if report.outcome not in _WITHOUT_EVENT:
            streams.setdefault(report.stream, []).append((report.seq_num or 0, report.frame or 0, place))
    return [place for of_stream in streams.values() for *_, place in sorted(of_stream)]
