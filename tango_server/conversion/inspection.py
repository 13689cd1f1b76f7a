"""Inspect a file: structure, completeness, tags or header, provenance, sidecar."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from tango_server.conversion.combining.member_list import read_member_list
from tango_server.conversion.errors import ConversionError, NotEsperantoError
from tango_server.conversion.esperanto.reading import read_esperanto, read_header
from tango_server.conversion.esperanto.record import provenance_in
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import ANYWHERE
from tango_server.conversion.files.sandbox import open_file
from tango_server.conversion.formats import Format, format_of
from tango_server.conversion.image.buffers import Workspace
from tango_server.conversion.provenance import Provenance
from tango_server.conversion.records import is_esperanto
from tango_server.conversion.sidecar import header_of, read_sidecar, sidecar_path
from tango_server.conversion.tiff.kept_tags import shown_tags
from tango_server.conversion.tiff.parser import read_structure, reading
from tango_server.conversion.tiff.reader import open_tiff
from tango_server.conversion.tiff.record import read_provenance
from tango_server.conversion.tiff.structure import Page, Structure
from tango_server.text import printable

_TAGS = {259: "compression", 262: "photometric", 274: "orientation", 278: "rows_per_strip", 317: "predictor"}
_WORDS: dict[tuple[int, Any], str] = {
    (259, 1): "none",
    (259, 5): "LZW",
    (259, 8): "deflate",
    (259, 32946): "deflate",
    (259, 50000): "zstd",
    (262, 0): "0 is white",
    (262, 1): "0 is black",
    (262, 2): "RGB",
}
"""The meaning of tag values."""
_MOST_SHOWN = 100  # pages whose tags are shown
_MOST_FRAMES = 10_000  # that are checked
_KINDS = {1: "uint", 2: "int", 3: "float"}


def inspect_file(source: Path | FrameLocation) -> dict[str, Any]:
    """Return all about a file, or one frame in it, as plain JSON.

    Raises
    ------
    SourceError
        if it does not exist or cannot be opened. Damage raises nothing: see `state` and `problem` in the result.
    """
    location = source if isinstance(source, FrameLocation) else FrameLocation.of(source)
    if is_esperanto(location.file):
        return _esperanto(location.file)
    known = format_of(location.file)
    return _tiff(location.file) if known.name == "TIFF" else _frames(location, known)


def _frames(location: FrameLocation, known: Format) -> dict[str, Any]:
    """Return all about a file of another format than TIFF: of the first complete frame, if it has several."""
    status = location.file.stat()
    found: dict[str, Any] = {
        "path": str(location),
        "bytes": status.st_size,
        "state": "damaged",
        "problem": "",
        "kind": known.name,
        "proof": "",
        "frames": None,
        "not_complete": {},
        "image": None,
        "header": {},
        "masked": 0,
        "provenance": None,
        "sidecar": _sidecar(location.file),
    }
    try:
        state = known.check(location, ANYWHERE)
    except ConversionError as error:
        return {**found, "problem": error.problem}
    found |= {"state": state.state, "problem": state.problem, "proof": state.proof, "frames": state.frames}
    shown = location
    if state.frames is not None:
        proofs, problems = _each_frame(location, known, min(state.frames, _MOST_FRAMES))
        found |= {"proof": " or ".join(filter(None, dict.fromkeys(proofs.values()))), "not_complete": problems}
        found["state"] = "incomplete" if problems and state.state == "complete" else state.state
        shown = replace(location, index=next(iter(proofs), None))
    if shown.index is None and state.frames is not None:
        return found
    try:
        return {**found, **_image(shown, known)}
    except ConversionError as error:
        return {**found, "state": "damaged", "problem": error.problem}


def _each_frame(location: FrameLocation, known: Format, frames: int) -> tuple[dict[int, str], dict[str, str]]:
    """Return the proof of each complete frame, and what the others lack, each with their first and last index."""
    proofs: dict[int, str] = {}
    lacking: list[tuple[int, int, str]] = []
    for index in range(frames):
        try:
            state = known.check(replace(location, index=index), ANYWHERE)
            problem = "" if state.state == "complete" else state.problem
        except ConversionError as error:
            problem = error.problem
        if not problem:
            proofs[index] = state.proof
        elif lacking and lacking[-1][1:] == (index - 1, problem):
            lacking[-1] = lacking[-1][0], index, problem
        else:
            lacking.append((index, index, problem))
    return proofs, {f"{first}" if first == last else f"{first} to {last}": why for first, last, why in lacking}


def _image(location: FrameLocation, known: Format) -> dict[str, Any]:
    with known.open(location, Workspace(), ANYWHERE) as source:
        image = source.images[0]
        masked = 0
        if source.own_mask is not None:
            masked = int(np.count_nonzero(source.own_mask.of(next(source.read()))))
        rows, columns = image.shape
        return {
            "image": {"rows": rows, "columns": columns, "pixel_type": image.pixel_type.name},
            "header": header_of(source).nexus_fields(),
            "masked": masked,
        }


def _tiff(path: Path) -> dict[str, Any]:
    structure = read_structure(path)
    proof, header = _of_tiff(path)
    return {
        "path": str(path),
        "bytes": structure.size,
        "state": structure.state,
        "problem": structure.problem,
        "kind": _kind(structure),
        "proof": proof,
        "header": header,
        "directory": "after the pixels" if structure.ifd_last else "before the pixels",
        "pages": [_page(page) for page in structure.pages],
        "tags": _tags(path, structure),
        **_provenance(path, read_provenance(structure)),
        "sidecar": _sidecar(path),
    }


def _of_tiff(path: Path) -> tuple[str, dict[str, Any]]:
    """Return how the completeness of a TIFF is proven, and what the detector states in it; nothing of a damaged one."""
    try:
        with open_tiff(path) as tiff:
            source = tiff.source
            return source.state.proof, source.header.nexus_fields()
    except ConversionError:
        return "", {}


def _esperanto(path: Path) -> dict[str, Any]:
    """Return all about an ESPERANTO frame: `header` has the units of `EsperantoHeader`."""
    found: dict[str, Any] = {
        "path": str(path),
        "bytes": path.stat().st_size,
        "state": "incomplete",
        "problem": "",
        "kind": "ESPERANTO",
        "header": None,
        "provenance": None,
        "sidecar": None,
    }
    try:
        header = read_header(path)
        found["header"] = {**asdict(header), "start": header.start._asdict(), "end": header.end._asdict()}
        found |= _provenance(path, provenance_in(header.history))
        read_esperanto(path)
    except NotEsperantoError as error:
        return {**found, "problem": error.problem}
    return {**found, "state": "complete"}


def _provenance(path: Path, provenance: Provenance | None) -> dict[str, Any]:
    """Return what made the file; of several frames in one, all these `members` or why they are unknown, too."""
    if provenance is None:
        return {"provenance": None}
    made = {
        "recipe": provenance.recipe,
        **({} if provenance.content_hash is None else {"content_hash": provenance.content_hash}),
        "source": provenance.source,
        "version": provenance.version,
        "placeholder": provenance.placeholder,
        **({} if provenance.original is None else {"original": provenance.original}),
        **({} if provenance.average is None else {"average": provenance.average}),
        **({} if provenance.combined is None else {"combined": provenance.combined}),
        **_corrections(provenance),
    }
    if provenance.combined is None:
        return {"provenance": made}
    try:
        return {"provenance": made, "members": read_member_list(path, provenance.combined)}
    except ConversionError as error:
        return {"provenance": made, "members": [], "members_problem": str(error)}


def _corrections(provenance: Provenance) -> dict[str, Any]:
    """Return the masters and pixel counts of a corrected frame, nothing for others.

    An ESPERANTO frame has no paths of masters, and of their SHA-256 only the first digits.
    """
    if not provenance.masters and not provenance.masked and provenance.overexposed is None:
        return {}
    return {
        "masters": [master.model_dump() for master in provenance.masters],
        "masked": provenance.masked,
        "overexposed": provenance.overexposed,
    }


def _tags(path: Path, structure: Structure) -> list[dict[str, str]]:
    """Return the private tags of each page, by number, with the beginning of their values."""
    with reading(path), open_file(path, ()) as file:
        return [
            {str(code): printable(text) for code, text in shown_tags(file, structure, number)}
            for number in range(min(len(structure.pages), _MOST_SHOWN))
        ]


def _kind(structure: Structure) -> str:
    if structure.state == "not_tiff":
        return "not a TIFF"
    order = "little-endian" if structure.byte_order == "<" else "big-endian"
    return f"{'Big' if structure.big else 'classic '}TIFF, {order}"


def _page(page: Page) -> dict[str, Any]:
    rows, columns = page.shape
    return {
        "rows": rows,
        "columns": columns,
        "pixel_type": f"{_KINDS.get(page.sample_formats[0], '?')}{page.bits[0]}",
        "samples": page.tags.get(277, 1),
        "segments": f"{len(page.offsets)} {'tiles' if 322 in page.tags else 'strips'}",  # noqa: PLR2004 - TileWidth
        "pixel_bytes": sum(page.counts),
        **{name: _WORDS.get((tag, page.tags[tag]), page.tags[tag]) for tag, name in _TAGS.items() if tag in page.tags},
        **page.texts,
    }


def _sidecar(path: Path) -> dict[str, Any] | None:
    sidecar = read_sidecar(path)
    if sidecar is None:
        return None
    center = {"center_x": sidecar.header.beam_center_x, "center_y": sidecar.header.beam_center_y}
    return {"path": str(sidecar_path(path)), **center}
