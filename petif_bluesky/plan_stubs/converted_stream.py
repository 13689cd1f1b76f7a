"""The stream `converted`: one event per frame of a run, with the converted image as external data.

All events of a stream have an image, and all its images have the same structure, because a catalogue makes one array
of them. The first structure in a run is that of `converted`; frames with other structures go to `converted-2` and so
on, and frames without a converted file to `unconverted`. If the output is not TIFF, the event has no image.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from event_model import ComposeStreamResource, StreamRange

from petif_bluesky.documents.literal_uri import literal_uri
from petif_bluesky.documents.mime_types import MANY_TIFFS
from tango_server.messages import FrameReport

CONVERTED = "converted"
UNCONVERTED = "unconverted"
_TIFF = {".tif", ".tiff"}  # extensions that the readers of bluesky and Tiled accept, case-sensitive


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
    """A stream with one event per frame, as a readable bluesky object that also emits the asset documents of the image.

    `show` sets the next reading. Reading the same frame again, such as after a pause, emits the same documents.
    """

    parent = None

    def __init__(
        self, device: str, stream: str, structure: StreamStructure | None, *, with_output: bool = True
    ) -> None:
        self.name = device
        self.hints: dict[str, list[str]] = {"fields": []}  # otherwise BestEffortCallback would plot every field
        self.stream = stream
        # One shared string: the RunEngine keeps it with each resource until the run ends.
        self._image = f"{device}_image"
        self._structure = structure
        self._with_output = with_output
        self._report: FrameReport | None = None
        self._index = -1

    def show(self, report: FrameReport) -> None:
        """Make `report` the next reading."""
        self._report = report
        self._index += 1

    def forget(self) -> None:
        """Drop the report: the RunEngine keeps readable objects until its call ends."""
        self._report = None

    def describe(self) -> dict[str, dict[str, Any]]:
        """Return the data keys."""
        described = {f"{self.name}_{key}": {"source": "petif-bluesky", **_KEYS[key]} for key in self._values()}
        if self._structure is not None:
            described[self._image] = {
                "source": "petif-bluesky",
                "dtype": "array",
                "dtype_numpy": self._structure.dtype_numpy,
                "shape": self._structure.shape,
                "external": "STREAM:",
            }
        return described

    def read(self) -> dict[str, dict[str, Any]]:
        """Return the reading of the frame, with the time when it was finished."""
        report = self._shown()
        return {
            f"{self.name}_{key}": {"value": value, "timestamp": report.finished}
            for key, value in self._values().items()
        }

    def collect_asset_docs(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Return the asset documents of the image; each image has its own resource, because names may have gaps.

        All resources of a stream have the same URI, with a literal path as template, because TiledWriter uses the URI
        of the first resource for all.
        """
        report = self._shown()
        if self._structure is None or report.output is None:
            return
        bundle = ComposeStreamResource()(
            mimetype=MANY_TIFFS,
            uri=self._structure.uri,
            data_key=self._image,
            parameters={
                "chunk_shape": self._structure.shape,
                "template": literal_uri(report.output)[1],
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

    def _shown(self) -> FrameReport:
        if self._report is None:
            raise RuntimeError(f"cannot read stream {self.stream}: no frame to show. Call show first.")
        return self._report

    def _values(self) -> dict[str, Any]:
        values = _values_of(self._report or FrameReport(source="", outcome="failed", finished=0.0))
        del values["output" if not self._with_output else "reason"]
        return values


def _values_of(report: FrameReport) -> dict[str, Any]:
    return {
        "raw": report.source,
        "output": report.output or "",
        "reason": report.reason,
        "seq_num": report.seq_num or 0,
        "stream": report.stream or "",
        "conversion_time": report.conversion_time,
        "latency": math.nan if report.latency is None else report.latency,
        "outcome": report.outcome,
    }


_TEXT = {"dtype": "string", "shape": []}
_SECONDS = {"dtype": "number", "dtype_numpy": "<f8", "shape": [], "units": "s", "precision": 4}
_KEYS: dict[str, dict[str, Any]] = {
    "raw": _TEXT,
    "output": _TEXT,
    "reason": _TEXT,
    "seq_num": {"dtype": "integer", "dtype_numpy": "<i8", "shape": []},
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
        self._unconverted = FrameStream(device, named(UNCONVERTED), None, with_output=False)

    def show(self, report: FrameReport) -> FrameStream:
        """Return the stream for this frame, with the frame as its next reading."""
        stream = self._stream(report)
        stream.show(report)
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
            self._streams[structure] = FrameStream(self._device, self._named(name), structure)
        return self._streams[structure]


def in_order(reports: Sequence[FrameReport], start: int) -> list[int]:
    """Return the indices of the reports from `start` on, by stream in order of appearance, then by event."""
    streams: dict[str | None, list[tuple[int, int]]] = {}
    for place in range(start, len(reports)):
        report = reports[place]
        streams.setdefault(report.stream, []).append((report.seq_num or 0, place))
    return [place for of_stream in streams.values() for _, place in sorted(of_stream)]
