"""Inspect a file: structure, completeness, tags or header, provenance, sidecar."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from tango_server.conversion.errors import NotEsperantoError
from tango_server.conversion.esperanto.reading import read_esperanto, read_header
from tango_server.conversion.esperanto.record import provenance_in
from tango_server.conversion.files.sandbox import open_file
from tango_server.conversion.provenance import Provenance
from tango_server.conversion.records import is_esperanto
from tango_server.conversion.sidecar import read_sidecar, sidecar_path
from tango_server.conversion.tiff.kept_tags import shown_tags
from tango_server.conversion.tiff.parser import read_structure, reading
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
_KINDS = {1: "uint", 2: "int", 3: "float"}


def inspect_file(path: Path) -> dict[str, Any]:
    """Return all about a file, as plain JSON.

    Raises
    ------
    SourceError
        if it does not exist or cannot be opened. Damage raises nothing: see `state` and `problem` in the result.
    """
    return _esperanto(path) if is_esperanto(path) else _tiff(path)


def _tiff(path: Path) -> dict[str, Any]:
    structure = read_structure(path)
    return {
        "path": str(path),
        "bytes": structure.size,
        "state": structure.state,
        "problem": structure.problem,
        "kind": _kind(structure),
        "directory": "after the pixels" if structure.ifd_last else "before the pixels",
        "pages": [_page(page) for page in structure.pages],
        "tags": _tags(path, structure),
        "provenance": _provenance(read_provenance(structure)),
        "sidecar": _sidecar(path),
    }


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
        found["provenance"] = _provenance(provenance_in(header.history))
        read_esperanto(path)
    except NotEsperantoError as error:
        return {**found, "problem": error.problem}
    return {**found, "state": "complete"}


def _provenance(provenance: Provenance | None) -> dict[str, Any] | None:
    if provenance is None:
        return None
    return {
        "recipe": provenance.recipe,
        **({} if provenance.content_hash is None else {"content_hash": provenance.content_hash}),
        "source": provenance.source,
        "version": provenance.version,
        "placeholder": provenance.placeholder,
        **({} if provenance.original is None else {"original": provenance.original}),
        **({} if provenance.average is None else {"average": provenance.average}),
        **_corrections(provenance),
    }


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
