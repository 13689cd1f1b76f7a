"""Draws docs/pictures/architecture.svg from the import contracts in pyproject.toml: `python docs/draw_architecture.py`.

`lint-imports` holds the code to these contracts, and they name every module and folder, so that the picture is true.
"""

import ast
import tomllib
from collections.abc import Iterator
from html import escape
from pathlib import Path

PROJECT = Path(__file__).parents[1]
PICTURE = PROJECT / "docs" / "pictures" / "architecture.svg"

_WIDTH, _ROW, _GAP, _HEAD = 520, 34, 6, 56
_PLACES = {
    "petif_bluesky": (0, 0),
    "tango_server": (1, 0),
    "tango_server.jobs": (0, 1),
    "tango_server.conversion": (1, 1),
}
_TITLES = {
    "petif_bluesky": "petif_bluesky: in the session",
    "tango_server": "tango_server: on the conversion host",
    "tango_server.jobs": "in tango_server/jobs",
    "tango_server.conversion": "in tango_server/conversion",
}


def towers() -> dict[str, list[list[str]]]:
    """Return the layers of each package, from the top: names of modules and folders."""
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    found: dict[str, list[list[str]]] = {}
    for contract in settings["tool"]["importlinter"]["contracts"]:
        for package in contract.get("containers", ()):
            found[package] = [[name.strip() for name in layer.split("|")] for layer in contract["layers"]]
    return found


def drawing() -> str:
    """Return the whole picture as SVG."""
    every = towers()
    upper = max(_height(every[package]) for package, (_, row) in _PLACES.items() if row == 0)
    lower = max(_height(every[package]) for package, (_, row) in _PLACES.items() if row == 1)
    width, height = 2 * _WIDTH + 3 * 20, upper + lower + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" role="img">',
        "  <title>The rooms of the code; each imports only what stands below it</title>",
        f'  <rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for package, (column, row) in _PLACES.items():
        parts += _tower(package, every[package], 20 + column * (_WIDTH + 20), row * upper)
    return "\n".join([*parts, "</svg>", ""])


def _height(layers: list[list[str]]) -> int:
    return _HEAD + len(layers) * (_ROW + _GAP)


def _tower(package: str, layers: list[list[str]], left: int, top: int) -> Iterator[str]:
    yield f'  <text x="{left}" y="{top + 38}" font-size="18" font-weight="bold">{_TITLES[package]}</text>'
    for number, layer in enumerate(layers):
        y = top + _HEAD + number * (_ROW + _GAP)
        letters = sum(len(name) + 4 for name in layer)
        room, x = _WIDTH - _GAP * (len(layer) - 1), float(left)
        for name in layer:
            width = room * (len(name) + 4) / letters
            yield from _cell(package, name, x, y, width)
            x += width + _GAP


def _cell(package: str, name: str, x: float, y: int, width: float) -> Iterator[str]:
    folder = PROJECT / package.replace(".", "/") / name
    fill, edge = ("#eaf2fb", "#2b6cb0") if folder.is_dir() else ("#f7f7f7", "#a0a0a0")
    module = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    text = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    yield "  <g>"
    yield f"    <title>{escape(text.splitlines()[0] if text else name)}</title>"
    yield (f'    <rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{_ROW}" rx="5" fill="{fill}" stroke="{edge}"/>')
    shown = f"{name}/" if folder.is_dir() else name
    yield f'    <text x="{x + width / 2:.0f}" y="{y + 22}" font-size="13" text-anchor="middle">{escape(shown)}</text>'
    yield "  </g>"


if __name__ == "__main__":
    PICTURE.write_text(drawing(), encoding="utf-8")
