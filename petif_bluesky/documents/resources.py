"""What resources and stream resources stand for, and which points of them datums and stream datums cover.

Of resources (areaDetector's TIFF plugin, its likes, ophyd.sim's signals with files), for the point p of a datum:

| resource | file |
|---|---|
| template and filename in its settings | `template % (root/resource_path/, filename, j)`, j in [p n, (p+1) n) |
| a spec that is known to number files (`FrameSelection.sequences`) | `root/resource_path_{index}.ext` |
| the path of a TIFF | that file |

Of stream resources (ophyd-async's TIFF writers, step scans and fly scans) the file `j` is `path(uri) +
template.format(j)`, with j in [i n, (i+1) n) for the index i of a stream datum.
"""

from collections.abc import Mapping
from typing import Any

from petif_bluesky.documents.errors import MalformedDocumentError, TemplateError
from petif_bluesky.documents.file_series import MOST_FRAMES, FileSeries, PassedOver, frame_count
from petif_bluesky.documents.mime_types import MANY_TIFFS, ONE_TIFF
from petif_bluesky.documents.templates import format_namer, printf_namer
from petif_bluesky.documents.uris import folder_of, is_tiff, path_of_uri, stem_of, tidy

Document = Mapping[str, Any]

_SPEC = "AD_TIFF"


def has_tiff_template(document: Document) -> bool:
    """Tell whether a resource names TIFFs by areaDetector's template: by its spec, or by how the names end."""
    template = document["resource_kwargs"].get("template")
    return isinstance(template, str) and (document["spec"].upper().startswith(_SPEC) or is_tiff(template))


def files_of_resource(document: Document, sequences: Mapping[str, str]) -> FileSeries | PassedOver:
    """Return the files of a resource.

    Raises
    ------
    MalformedDocumentError, TemplateError
        if it announces TIFFs that can't be named.

    """
    spec: str = document["spec"]
    settings: Document = document["resource_kwargs"]
    root, path = document.get("root") or "", document["resource_path"]
    windows = document.get("path_semantics") == "windows"
    extension = sequences.get(spec)
    if has_tiff_template(document):
        return _templated(document, folder_of(root, path, windows=windows))
    if extension is not None and settings.keys().isdisjoint({"template", "filename"}):
        stem = stem_of(root, path, windows=windows)
        return FileSeries(lambda number: f"{stem}_{number}.{extension}")
    if "template" not in settings and is_tiff(path):
        file = tidy(stem_of(root, path, windows=windows))
        return FileSeries(lambda _number: file)
    if spec.upper().startswith(_SPEC):
        raise MalformedDocumentError(
            "resource",
            document,
            "no template in resource_kwargs; expected template and filename, as areaDetector's TIFF plugin announces "
            "its files",
        )
    return PassedOver(f"{spec} is no TIFF")


def point_of_datum(document: Document) -> int:
    """Return the number of a datum among those of its resource; 0 if it has none, as a resource of one file."""
    settings: Document = document["datum_kwargs"]
    for key in ("point_number", "index"):
        if key in settings:
            value = settings[key]
            if isinstance(value, bool) or not hasattr(value, "__index__") or value < 0:
                raise ValueError(f"{key} is {value!r}")
            return int(value.__index__())
    return 0


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


def span_of_stream_datum(document: Document) -> tuple[range, int]:
    """Return the indices that a stream datum covers, and the sequence number of the first one's event.

    Raises
    ------
    MalformedDocumentError
        if that is nothing sensible.

    """
    first, stop = document["indices"]["start"], document["indices"]["stop"]
    if not 0 <= first <= stop <= first + MOST_FRAMES:
        raise MalformedDocumentError(
            "stream_datum",
            document,
            f"indices from {first} to {stop}; expected numbers from 0 upwards, {MOST_FRAMES} of them at most",
        )
    # A device leaves them 0 for the RunEngine to fill in; documents may come from elsewhere.
    seq_num = document["seq_nums"]["start"]
    return range(int(first), int(stop)), int(seq_num if seq_num > 0 else first + 1)


def _templated(document: Document, folder: str) -> FileSeries:
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
            f"{error}; expected one that takes folder, file name and number, as %s%s_%6.6d.tiff, and one or more files "
            "for a point",
            "Its frames will not be converted unless events name their files; correct the plugin's file_template.",
        ) from error


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
            document,
            f"{error}; expected one that takes a number, as name_{{:06d}}.tiff, and one or more frames for a file",
        ) from error
    return FileSeries(lambda number: folder + name(number), count, frames_per_file, document["data_key"])
