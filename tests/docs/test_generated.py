"""Pages and pictures that programs write are up to date; answers about performance are in their tables."""

import csv
import re
import runpy
import xml.etree.ElementTree as ET
from itertools import product
from typing import Any

import numpy as np
import pytest

from tango_server.recipe import Recipe
from tests.docs.pages import DOCS

SVG = "{http://www.w3.org/2000/svg}"
AXES = {"none": (), "0": (0,), "1": (1,), "both": (0, 1)}


@pytest.mark.parametrize("name", ["generate_commands", pytest.param("generate_tango", marks=pytest.mark.system)])
def test_generated_page_is_up_to_date(name: str) -> None:
    generator = runpy.run_path(str(DOCS / f"{name}.py"))
    assert generator["PAGE"].read_text(encoding="utf-8") == generator["page"](), f"run python docs/{name}.py"


def test_tango_page_has_the_names_of_the_old_server() -> None:
    generator = runpy.run_path(str(DOCS / "generate_tango.py"))
    marked = re.findall(r"^\| `(\w+)` \* \|", generator["PAGE"].read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(marked) == sorted(generator["ANCESTOR"])
    guide = (DOCS / "how-to" / "migrate.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in guide for name in marked)


def test_picture_of_the_architecture_is_up_to_date() -> None:
    made = runpy.run_path(str(DOCS / "draw_architecture.py"))
    assert made["PICTURE"].read_text(encoding="utf-8") == made["drawing"](), "run python docs/draw_architecture.py"


@pytest.fixture(scope="module")
def drawing() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "draw_orientations.py"))


def test_picture_is_up_to_date(drawing: dict[str, Any]) -> None:
    assert drawing["PICTURE"].read_text(encoding="utf-8") == drawing["drawing"](), (
        "run python docs/draw_orientations.py"
    )


@pytest.mark.parametrize(("rotation", "flip"), [*product((0, 90, 180, 270), AXES)])
def test_picture_shows_what_numpy_does(drawing: dict[str, Any], rotation: int, flip: str) -> None:
    frame = drawing["raw_frame"]()
    center = np.zeros_like(frame)
    center[drawing["CENTER"][::-1]] = 1
    turned, moved = (np.flip(np.rot90(image, rotation // 90), AXES[flip]) for image in (frame, center))

    panel = ET.parse(drawing["PICTURE"]).getroot().find(f".//{SVG}g[@id='rotation-{rotation}-flip-{flip}']")
    assert panel is not None
    background, *pixels = panel.findall(f"{SVG}rect")
    size = int(pixels[0].attrib["width"])
    colors = {"#2d3748": 1, "#2b6cb0": 2}
    shown = np.zeros((int(background.attrib["height"]) // size, int(background.attrib["width"]) // size), np.uint8)
    for pixel in pixels:
        shown[int(pixel.attrib["y"]) // size, int(pixel.attrib["x"]) // size] = colors[pixel.attrib["fill"]]
    np.testing.assert_array_equal(shown, turned)

    cross = panel.find(f"{SVG}path")
    assert cross is not None
    left, y, width, x, *_ = map(float, re.findall(r"[\d.]+", cross.attrib["d"]))
    assert left + width / 2 == x
    ((row, column),) = np.argwhere(moved)
    assert (x / size - 0.5, y / size - 0.5) == pytest.approx((column, row))


def test_equal_orientations_on_the_page_are_equal() -> None:
    page = (DOCS / "explanation" / "recipes.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| rotation (\d+) \| (.+) \|$", page, re.MULTILINE)
    image = np.arange(12).reshape(3, 4)

    def turned(rotation: str, flip: str) -> Any:
        recipe = Recipe(rotation=int(rotation), flip=flip)
        return np.flip(np.rot90(image, recipe.rotation // 90), AXES[recipe.flip])

    assert [rotation for rotation, _ in table] == ["0", "90"]
    for rotation, cells in table:
        for flip, cell in zip(AXES, cells.split(" | "), strict=True):
            other = re.fullmatch(r"(\d+), `(\w+)`", cell)
            assert other is not None
            np.testing.assert_array_equal(turned(rotation, flip), turned(other[1], other[2]))
    np.testing.assert_array_equal(turned("90", "1"), np.rot90(np.flipud(image)))


def test_answers_about_performance_are_in_their_tables() -> None:
    """A link's text begins the name of the measurement whose figures the answer must have."""
    page = DOCS / "explanation" / "performance.md"
    rows = re.findall(r"^\|[^|]+\| ([^|]+) \| \[([^\]]+)\]\(([\w/]+\.csv)\) \|$", page.read_text("utf-8"), re.MULTILINE)
    assert len(rows) > 10
    for answer, measurement, source in rows:
        with (page.parent / source).open(encoding="utf-8", newline="") as file:
            measured = {row["value"] for row in csv.DictReader(file) if row["measurement"].startswith(measurement)}
        numbers = re.findall(r"\d+(?:\.\d+)?", answer.replace("(95 %)", "").replace("100 ms", ""))
        assert numbers
        assert set(numbers) <= measured, f"{answer}: {source} has {measured}"
