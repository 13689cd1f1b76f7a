"""Find the frames of resources and stream resources, and the points covered by datums and stream datums.

Resources (areaDetector's plugins and similar, ophyd.sim's signals with files), for the point p of a datum, with n =
`frame_per_point` and j in [p n, (p+1) n):

| resource | frames |
|---|---|
| `template` and `filename`: TIFF, CBF, EDF, MarCCD | `template % (root/resource_path/, filename, j)` |
| the same with the spec `AD_CBF` | numbered from `initial_number`, by default 1 |
| the same with the spec `AD_HDF5_SINGLE` | the first frame in each of these files |
| a spec that numbers its files (`FrameSelection.sequences`) | `root/resource_path_{index}.ext` |
| the path of a TIFF, CBF or MarCCD file | that file |
| the path of an EDF file; `AD_HDF5`, `AD_HDF5_SWMR...`, `TPX_HDF5` | frames j of that file |
| `AD_EIGER...` | `root/resource_path_{seq_id}_master.h5`: the frame that the datum names, or all of the event |

Stream resources (ophyd-async's writers, step scans and fly scans), for the index i of a stream datum, with n frames per
index and j in [i n, (i+1) n): file `path(uri) + template.format(j)`, or frames j of one HDF5 or EDF file.

Specs that end in `_TS` are time stamps.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from petif_bluesky.documents.errors import MalformedDocumentError
from petif_bluesky.documents.file_series import (
    MOST_FRAMES,
    NO_POINT,
    DatumPoint,
    FileSeries,
    FrameFiles,
    FrameStack,
    PassedOver,
)
from petif_bluesky.documents.hdf5_files import SINGLE, hdf5_of_resource, hdf5_of_stream_resource
from petif_bluesky.documents.mime_types import HDF5, MANY_TIFFS, ONE_TIFF
from petif_bluesky.documents.numbered_files import first_number, stated_count, streamed_files, templated_files
from petif_bluesky.documents.uris import folder_of, is_other_image, is_tiff, path_of_uri, stem_of, tidy

Document = Mapping[str, Any]

_SPEC = "AD_TIFF"
_CBF = "AD_CBF"
_TIME_STAMPS = "_TS"
_OTHER_TYPES = re.compile(
    r"(?P<many>multipart/related;type=)?(?:application|image)/(?:x-)?(?P<format>cbf|edf|mar-?ccd|mccd)"
)


def has_tiff_template(document: Document) -> bool:
    """Return whether a resource has TIFF files in areaDetector's way, by its spec or by the extension."""
    template = document["resource_kwargs"].get("template")
    return isinstance(template, str) and (document["spec"].upper().startswith(_SPEC) or is_tiff(template))


def has_folder_and_template(document: Document) -> bool:
    """Return whether the path of a resource is the folder of TIFF files, or of HDF5 files with one frame each."""
    return has_tiff_template(document) or document["spec"].upper() == SINGLE


def files_of_resource(document: Document, sequences: Mapping[str, str]) -> FrameFiles | PassedOver:
    """Return the files of a resource.

    Raises
    ------
    MalformedDocumentError, TemplateError
        if it announces frames whose files cannot be determined.

    """
    spec: str = document["spec"]
    settings: Document = document["resource_kwargs"]
    root, path = document.get("root") or "", document["resource_path"]
    windows = document.get("path_semantics") == "windows"
    extension = sequences.get(spec)
    if spec.upper().endswith(_TIME_STAMPS):
        return PassedOver(f"{spec} are time stamps")
    if has_tiff_template(document):
        return templated_files(document, folder_of(root, path, windows=windows))
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
    return hdf5_of_resource(document) or _other_images(document, root, path, windows=windows)


def point_of_datum(document: Document) -> DatumPoint:
    """Return the point number of a datum, `NO_POINT` if it has none, as for a resource with one file.

    For one image of an Eiger, return the sequence and the image.
    """
    settings: Document = document["datum_kwargs"]
    point = first_number(settings, ("point_number", "index", "seq_id"))
    image = first_number(settings, ("frame_num", "image_slice"))
    return point if image == NO_POINT else (point, image)


def files_of_stream_resource(document: Document) -> FrameFiles | PassedOver:
    """Return the files of a stream resource.

    Raises
    ------
    MalformedDocumentError, TemplateError
        if it announces frames whose files cannot be determined.

    """
    mimetype = document["mimetype"].replace(" ", "").lower()
    uri: str = document["uri"]
    data_key: str = document["data_key"]
    folder = path_of_uri(uri)
    other = _OTHER_TYPES.fullmatch(mimetype)
    if other is None and mimetype not in {MANY_TIFFS, ONE_TIFF, HDF5}:
        return PassedOver(f"{document['mimetype']} is not a format of frames", data_key)
    if folder is None:
        return PassedOver(f"{uri} is not a file", data_key)
    if mimetype == HDF5:
        return hdf5_of_stream_resource(document, folder)
    if mimetype == MANY_TIFFS or (other is not None and other["many"]):
        return streamed_files(document, folder)
    if other is not None and other["format"] == "edf":
        return FrameStack(tidy(folder), count=stated_count(document["parameters"]), data_key=data_key)
    return FileSeries(lambda _number: folder, data_key=data_key)


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


def _other_images(document: Document, root: str, path: str, *, windows: bool) -> FrameFiles | PassedOver:
    """Return the CBF, EDF or MarCCD files of a resource."""
    spec, settings = document["spec"].upper(), document["resource_kwargs"]
    template = settings.get("template")
    if spec == _CBF or (isinstance(template, str) and is_other_image(template)):
        first = first_number({"initial_number": 1 if spec == _CBF else 0, **settings}, ("initial_number",))
        return replace(templated_files(document, folder_of(root, path, windows=windows)), first=first)
    if template is None and is_other_image(path):
        file, count = tidy(stem_of(root, path, windows=windows)), stated_count(settings)
        if count is not None and file.lower().endswith(".edf"):
            return FrameStack(file, count=count)
        return FileSeries(lambda _number: file)
    return PassedOver(f"{document['spec']} is not a format of frames")
