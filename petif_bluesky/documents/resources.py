"""Find the files of resources and stream resources, and the points covered by datums and stream datums.

Resources (areaDetector's TIFF plugin and similar, ophyd.sim's signals with files), for the point p of a datum:

| resource | file |
|---|---|
| with `template` and `filename` in its kwargs | `template % (root/resource_path/, filename, j)`, j in [p n, (p+1) n) |
| with a spec that numbers its files (`FrameSelection.sequences`) | `root/resource_path_{index}.ext` |
| with the path of a TIFF file | that file |

For stream resources (ophyd-async's TIFF writers, step scans and fly scans) file `j` is `path(uri) +
template.format(j)`, with j in [i n, (i+1) n) for index i of a stream datum.
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
    """Return whether a resource has TIFF files in areaDetector's way, by its spec or by the extension."""
    template = document["resource_kwargs"].get("template")
    return isinstance(template, str) and (document["spec"].upper().startswith(_SPEC) or is_tiff(template))


def files_of_resource(document: Document, sequences: Mapping[str, str]) -> FileSeries | PassedOver:
    """Return the files of a resource.

    Raises
    ------
    MalformedDocumentError, TemplateError
        if it announces TIFF files whose names cannot be determined.

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
            "no template in resource_kwargs, which should have template and filename, as from areaDetector's TIFF "
            "plugin",
        )
    return PassedOver(f"{spec} is not TIFF")


def point_of_datum(document: Document) -> int:
    """Return the point number of a datum; 0 if it has none, as for a resource with one file."""
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
        if it announces TIFF files whose names cannot be determined.

    """
    mimetype = document["mimetype"].replace(" ", "").lower()
    uri: str = document["uri"]
    folder = path_of_uri(uri)
    if mimetype not in {MANY_TIFFS, ONE_TIFF}:
        return PassedOver(f"{document['mimetype']} is not TIFF", document["data_key"])
    if folder is None:
        return PassedOver(f"{uri} is not a file", document["data_key"])
    if mimetype == ONE_TIFF:
        return FileSeries(lambda _number: folder, data_key=document["data_key"])
    return _many(document, folder)


def span_of_stream_datum(document: Document) -> tuple[range, int]:
    """Return the indices that a stream datum covers, and the seq_num of the first.

    Raises
    ------
    MalformedDocumentError
        if they are out of range.

    """
    first, stop = document["indices"]["start"], document["indices"]["stop"]
    if not 0 <= first <= stop <= first + MOST_FRAMES:
        raise MalformedDocumentError(
            "stream_datum",
            document,
            f"indices {first} to {stop} are out of range: a document may have at most {MOST_FRAMES}, from 0 upwards",
        )
    # Devices leave seq_nums at 0 for the RunEngine to fill in; documents may not come from a RunEngine.
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
            f"{error}; it needs folder, file name and number, such as %s%s_%6.6d.tiff, with one or more "
            "files per point",
            "Its frames will not be converted unless events name their files. Fix file_template in the plugin.",
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
            f"{error}; it needs a number, such as name_{{:06d}}.tiff, with one or more frames per file",
        ) from error
    return FileSeries(lambda number: folder + name(number), count, frames_per_file, document["data_key"])
