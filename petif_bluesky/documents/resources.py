"""Resource and datum documents: areaDetector's TIFF plugin, its likes, ophyd.sim's signals with files.

| resource | file |
|---|---|
| template and filename in its settings | `template % (root/resource_path/, filename, j)`, j in [p n, (p+1) n) |
| a spec that is known to number files (`FrameSelection.sequences`) | `root/resource_path_{index}.ext` |
| the path of a TIFF | that file |
"""

from collections.abc import Mapping
from typing import Any

from petif_bluesky.documents.errors import MalformedDocumentError, TemplateError, uid_of
from petif_bluesky.documents.file_series import FileSeries, PassedOver, frame_count
from petif_bluesky.documents.templates import printf_namer
from petif_bluesky.documents.uris import folder_of, is_tiff, stem_of, tidy

Document = Mapping[str, Any]

_SPEC = "AD_TIFF"


def has_tiff_template(document: Document) -> bool:
    """Tell whether a resource names TIFFs by areaDetector's template: by its spec, or by how the names end."""
    template = document["resource_kwargs"].get("template")
    return isinstance(template, str) and (document["spec"].upper().startswith(_SPEC) or is_tiff(template))


def series_of_resource(document: Document, sequences: Mapping[str, str]) -> FileSeries | PassedOver:
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
            uid_of(document),
            "no template in resource_kwargs",
            "template and filename, as areaDetector's TIFF plugin announces its files",
            "Its frames will not be converted; correct the device that emits it.",
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
            uid_of(document),
            str(error),
            "one that takes folder, file name and number, as %s%s_%6.6d.tiff, and one or more files for a point",
            "Its frames will not be converted unless events name their files; correct the plugin's file_template.",
        ) from error
