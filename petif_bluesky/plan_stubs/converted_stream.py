"""The stream `converted`: one event per frame of a run, with the converted image as external data.

All images of one stream have the same structure, and every event of it has one: a catalogue makes a single array of
them. The first structure of a run is that of `converted`; frames with another one go to `converted-2` and so on, frames
without a converted file to `unconverted`. A frame whose output is no TIFF has its event without the image.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
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
_TIFF = {".tif", ".tiff"}  # what the readers of bluesky and Tiled take, case included


@dataclass(frozen=True, slots=True)
class StreamStructure:
    """What the images of one stream have in common; `uri` is that of their host."""

    pages: int
    rows: int
    columns: int
    dtype_numpy: str
    uri: str

    @property
    def shape(self) -> list[int]:
        """The shape of the image of one event."""
        return [self.pages, self.rows, self.columns]


def structure_of(report: FrameReport) -> StreamStructure | None:
    """Return the structure of a frame's converted image, None if there is none that a catalogue could open."""
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
    """Return whether this run has made a file for the frame."""
    return report.output is not None and report.outcome in {"converted", "placeholder"}


class FrameStream:
    """One stream of events about frames; readable by bluesky, which also takes the documents of the image from it.

    Each `show` makes the next reading. Reading the same frame again, as after a pause, gives the same documents anew.
    """

    parent = None

    def __init__(
        self, device: str, stream: str, structure: StreamStructure | None, *, with_output: bool = True
    ) -> None:
        self.name = device
        self.stream = stream
        self._image = f"{device}_image"  # one text: the RunEngine keeps it with each resource until the run ends
        self._structure = structure
        self._with_output = with_output
        self._report: FrameReport | None = None
        self._index = -1

    def show(self, report: FrameReport) -> None:
        """Have `report` read next."""
        self._report = report
        self._index += 1

    def forget(self) -> None:
        """Keep no report: the RunEngine keeps what it has read until its call ends."""
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
        """Return what is known of the frame, as of when it was finished."""
        report = self._shown()
        return {
            f"{self.name}_{key}": {"value": value, "timestamp": report.finished}
            for key, value in self._values().items()
        }

    def collect_asset_docs(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Return the documents of the image: a resource of its own, because no template fits names with gaps.

        The URI is the same for all of a stream, and the template a literal path: TiledWriter takes the URI of the first
        resource for all.
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
            raise RuntimeError(f"the stream {self.stream} is read before a frame was shown")
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
    """The streams of one run."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._streams: dict[StreamStructure | None, FrameStream] = {}
        self._unconverted = FrameStream(device, UNCONVERTED, None, with_output=False)

    def show(self, report: FrameReport) -> FrameStream:
        """Return the stream that gives this frame as its next reading."""
        stream = self._stream(report)
        stream.show(report)
        return stream

    def forget(self) -> None:
        """The run is over: keep no report of it."""
        for stream in (self._unconverted, *self._streams.values()):
            stream.forget()

    def _stream(self, report: FrameReport) -> FrameStream:
        if not is_there(report):
            return self._unconverted
        structure = structure_of(report)
        if structure not in self._streams:
            number = len(self._streams) + 1
            name = CONVERTED if number == 1 else f"{CONVERTED}-{number}"
            self._streams[structure] = FrameStream(self._device, name, structure)
        return self._streams[structure]


def in_order(reports: Sequence[FrameReport], start: int) -> list[int]:
    """Return the places of the reports from `start` on: streams as they come, within each by its events."""
    streams: dict[str | None, list[tuple[int, int]]] = {}
    for place in range(start, len(reports)):
        report = reports[place]
        streams.setdefault(report.stream, []).append((report.seq_num or 0, place))
    return [place for of_stream in streams.values() for _, place in sorted(of_stream)]
