"""HDF5 files in resources and stream resources: the file, the data set and the frames of each point."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from petif_bluesky.documents.file_series import NO_POINT, EigerMasters, FrameFiles, FrameStack, PassedOver
from petif_bluesky.documents.numbered_files import first_number, stated_count, streamed_files, templated_files
from petif_bluesky.documents.uris import folder_of, stem_of, tidy

Document = Mapping[str, Any]

SINGLE = "AD_HDF5_SINGLE"
_EIGER = "AD_EIGER"
_SWMR = "AD_HDF5_SWMR"
_DATA_SETS = {  # as in area-detector-handlers
    "AD_HDF5": "/entry/data/data",
    "AD_HDF5_SWMR": "/entry/data/data",
    "AD_HDF5_SINGLE": "/entry/data/data",
    "TPX_HDF5": "/entry/instrument/detector/data",
}
_NAMES_OF_DATA_SET = ("dataset", "path", "key")


def hdf5_of_resource(document: Document) -> FrameFiles | None:
    """Return the frames of a resource in HDF5 files, None if its spec is another one; raise `TemplateError`."""
    settings: Document = document["resource_kwargs"]
    spec: str = document["spec"].upper()
    root, path = document.get("root") or "", document["resource_path"]
    windows = document.get("path_semantics") == "windows"
    if spec == SINGLE:
        numbered = templated_files(document, folder_of(root, path, windows=windows))
        return replace(numbered, data_set=_data_set_in(settings, spec), indexed=1)
    if spec.startswith(_EIGER):
        sequence = first_number(settings, ("seq_id",))
        return EigerMasters(stem_of(root, path, windows=windows), None if sequence == NO_POINT else sequence)
    if "template" not in settings and (spec in _DATA_SETS or spec.startswith(_SWMR)):
        file = tidy(stem_of(root, path, windows=windows))
        return FrameStack(file, _data_set_in(settings, spec), stated_count(settings) or 1)
    return None


def hdf5_of_stream_resource(document: Document, file: str) -> FrameFiles | PassedOver:
    """Return the frames of a stream resource in HDF5 files; raise `TemplateError`."""
    settings: Document = document["parameters"]
    if settings.get("slice"):
        return PassedOver("they are a slice of their data set", document["data_key"])
    data_set = _data_set_in(settings)
    if settings.get("template"):
        return replace(streamed_files(document, file), data_set=data_set, indexed=None)
    axes = len(settings.get("chunk_shape") or ())
    return FrameStack(tidy(file), data_set, stated_count(settings), document["data_key"], axes)


def _data_set_in(settings: Document, spec: str = "") -> str:
    """Return the path of the data set that a document names, or that its spec implies; else an empty text."""
    value = next((settings[name] for name in _NAMES_OF_DATA_SET if settings.get(name)), _DATA_SETS.get(spec, ""))
    names = value.split("/") if isinstance(value, str) else [str(name) for name in value]
    return "".join(f"/{name}" for name in names if name)
