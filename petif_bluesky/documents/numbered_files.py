"""Numbers and numbered file names in resources and stream resources."""

from collections.abc import Mapping, Sequence
from typing import Any

from petif_bluesky.documents.errors import TemplateError
from petif_bluesky.documents.file_series import NO_POINT, FileSeries, frame_count
from petif_bluesky.documents.templates import format_namer, printf_namer

Document = Mapping[str, Any]


def first_number(settings: Document, keys: Sequence[str]) -> int:
    """Return the value of the first of the keys that are in a document, `NO_POINT` if it has none."""
    for key in keys:
        if key in settings:
            value = settings[key]
            if isinstance(value, bool) or not hasattr(value, "__index__") or value < 0:
                raise ValueError(f"{key} is {value!r}")
            return int(value.__index__())
    return NO_POINT


def stated_count(settings: Document) -> int | None:
    """Return the frames per point that a document states, None if it states none."""
    stated = next((settings[key] for key in ("frame_per_point", "multiplier") if settings.get(key)), None)
    return None if stated is None else frame_count(stated)


def templated_files(document: Document, folder: str) -> FileSeries:
    """Return the numbered files of a resource; raise `TemplateError`."""
    settings: Document = document["resource_kwargs"]
    try:
        return FileSeries(
            printf_namer(settings["template"], (folder, settings["filename"])),
            frame_count(settings.get("frame_per_point", 1)),
        )
    except ValueError as error:
        raise TemplateError(
            "resource",
            document,
            f"{error}; it needs folder, file name and number, such as %s%s_%6.6d.tiff, with one or more "
            "files per point",
            "Its frames will not be converted unless events name their files. Fix file_template in the plugin.",
        ) from error


def streamed_files(document: Document, folder: str) -> FileSeries:
    """Return the numbered files of a stream resource; raise `TemplateError`."""
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
            document,
            f"{error}; it needs a number, such as name_{{:06d}}.tiff, with one or more frames per file",
        ) from error
    return FileSeries(lambda number: folder + name(number), count, frames_per_file, document["data_key"])
