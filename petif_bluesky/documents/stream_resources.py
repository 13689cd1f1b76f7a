"""Stream resource and stream datum documents: ophyd-async's TIFF writers, step scans and fly scans.

The file `j` is `path(uri) + template.format(j)`, with j in [i n, (i+1) n) for the index i of a stream datum.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from petif_bluesky.documents.errors import MalformedDocumentError, TemplateError, uid_of
from petif_bluesky.documents.file_series import MOST_FRAMES, FileSeries, PassedOver, frame_count
from petif_bluesky.documents.mime_types import MANY_TIFFS, ONE_TIFF
from petif_bluesky.documents.templates import format_namer
from petif_bluesky.documents.uris import path_of_uri

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Span:
    """What a stream datum covers: indices, and the sequence numbers of their events."""

    first: int
    stop: int
    first_seq_num: int

    @property
    def indices(self) -> range:
        """The indices."""
        return range(self.first, self.stop)

    def seq_num(self, index: int) -> int:
        """Return the number of the event to which an index belongs."""
        return self.first_seq_num + index - self.first


def files_of_stream_resource(document: Document) -> FileSeries | PassedOver:
    """Return the files of a stream resource.

    Raises
    ------
    MalformedDocumentError, TemplateError
        if it announces TIFFs that can't be named.

    """
    mimetype = document["mimetype"].replace(" ", "").lower()
    uri: str = document["uri"]
    folder = path_of_uri(uri)
    if mimetype not in {MANY_TIFFS, ONE_TIFF}:
        return PassedOver(f"{document['mimetype']} is no TIFF", document["data_key"])
    if folder is None:
        return PassedOver(f"{uri} is no file", document["data_key"])
    if mimetype == ONE_TIFF:
        return FileSeries(lambda _number: folder, data_key=document["data_key"])
    return _many(document, folder)


def span_of_stream_datum(document: Document) -> Span:
    """Return what a stream datum covers.

    Raises
    ------
    MalformedDocumentError
        if that is nothing sensible.

    """
    indices, seq_nums = document["indices"], document["seq_nums"]
    first, stop = indices["start"], indices["stop"]
    if not 0 <= first <= stop <= first + MOST_FRAMES:
        raise MalformedDocumentError(
            "stream_datum",
            uid_of(document),
            f"indices from {first} to {stop}",
            f"numbers from 0 upwards, {MOST_FRAMES} of them at most",
            "Its frames will not be converted; correct the device that emits it.",
        )
    # A device leaves them 0 for the RunEngine to fill in; documents may come from elsewhere.
    filled = seq_nums["start"] > 0
    return Span(int(first), int(stop), int(seq_nums["start"]) if filled else int(first) + 1)


def _many(document: Document, folder: str) -> FileSeries:
    settings: Document = document["parameters"]
    try:
        name = format_namer(settings["template"], settings.get("filename") or "")
        stated = [settings[key] for key in ("files_per_datum", "frame_per_point", "multiplier") if settings.get(key)]
        chunk = settings.get("chunk_shape") or (1,)
        frames_per_file = frame_count(chunk[0])
        count = frame_count(stated[0]) if stated else None
        if settings.get("join_method") == "stack":
            count = 1
        elif stated and not settings.get("files_per_datum"):
            count = max(1, frame_count(stated[0]) // frames_per_file)
    except ValueError as error:
        raise TemplateError(
            "stream_resource",
            uid_of(document),
            str(error),
            "one that takes a number, as name_{:06d}.tiff, and one or more frames for a file",
            "Its frames will not be converted; correct the device that emits it.",
        ) from error
    return FileSeries(lambda number: folder + name(number), count, frames_per_file, document["data_key"])
