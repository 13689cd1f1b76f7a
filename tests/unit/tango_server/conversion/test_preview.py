"""What the picture of a frame shows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from tango_server.conversion import convert_file, preview
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.tiff.reader import read_first_image
from tango_server.recipe import Recipe

SHAPE = (30, 40)


@pytest.fixture
def frame(tmp_path: Path) -> Path:
    rng = np.random.default_rng(2)
    tifffile.imwrite(tmp_path / "a.tif", rng.integers(100, 1000, SHAPE).astype(np.uint16))
    tifffile.imwrite(tmp_path / "dark.tif", rng.integers(10, 20, SHAPE).astype(np.uint16))
    mask = np.zeros(SHAPE, np.uint8)
    mask[3, 4:9] = 1
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    return tmp_path / "a.tif"


def panels(frame: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the panels of a preview, without drawing it."""
    drawn: list[Any] = []
    monkeypatch.setattr(preview, "draw", lambda shown, *_: drawn.extend(shown))
    preview.draw_preview(FrameLocation(frame), recipe, frame.with_suffix(".png"))
    return drawn


def test_without_corrections_there_are_two_images(frame: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = panels(frame, Recipe(rotation=90), monkeypatch)
    assert before.mask is None
    np.testing.assert_array_equal(after.image, np.rot90(before.image))


def test_masked_pixels_are_red_in_the_picture(frame: Path) -> None:
    picture = frame.with_suffix(".png")
    preview.draw_preview(FrameLocation(frame), Recipe(corrections={"mask": str(frame.with_name("mask.tif"))}), picture)
    with Image.open(picture) as drawn:
        assert drawn.width == 3 * 650
        red, green, blue = (np.asarray(drawn.convert("RGB"))[..., channel].astype(int) for channel in range(3))
    assert np.count_nonzero((red > 150) & (green < 110) & (blue < 110)) > 200


@pytest.mark.parametrize("repair", [None, "median"])
def test_corrected_frame_and_mask_are_shown_as_stored(
    frame: Path, monkeypatch: pytest.MonkeyPatch, repair: Any
) -> None:
    corrections = {"dark": str(frame.with_name("dark.tif")), "mask": str(frame.with_name("mask.tif")), "repair": repair}
    recipe = Recipe.preset("xdi", rotation=90, flip="1", corrections=corrections)
    before, corrected, after = panels(frame, recipe, monkeypatch)
    mask = read_first_image(frame.with_name("mask.tif")) != 0
    expected = read_first_image(frame).astype(float) - read_first_image(frame.with_name("dark.tif"))
    np.testing.assert_array_equal(before.image, read_first_image(frame))
    np.testing.assert_array_equal(before.mask, mask)
    np.testing.assert_array_equal(corrected.mask, mask)
    np.testing.assert_array_equal(corrected.image[~mask], expected[~mask])
    assert np.isnan(corrected.image[mask]).all() == (repair is None)
    output = frame.with_name("out.tif")
    convert_file(frame, recipe, output=output)
    np.testing.assert_array_equal(after.image, read_first_image(output))
    assert "5 pixels masked" in corrected.title
