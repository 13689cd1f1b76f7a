"""Which outputs `petif convert --newer-only` skips."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tango_server.conversion import convert_file
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.jobs.output_check import OutputCheck
from tango_server.recipe import Recipe

SHAPE = (256, 256)  # the smallest ESPERANTO frame
HEADER = {"wavelength": 0.3, "distance": 300, "pixel_size": 0.2, "beam_center": (128, 128), "exposure": 1,
          "omega": {"start": 0, "step": 1}}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, value in (("frame", 50), ("dark", 7), ("other", 8), ("mask", 0)):
        image = np.full(SHAPE, value, np.uint16)
        image[3, 4] = 1
        tifffile.imwrite(tmp_path / f"{name}.tif", image)
    return tmp_path


def recipe(folder: Path, dark: str = "dark", **more: Any) -> Recipe:
    return Recipe(corrections={"dark": str(folder / f"{dark}.tif"), "mask": str(folder / "mask.tif")}, **more)


def esperanto(folder: Path, dark: str = "dark") -> Recipe:
    return recipe(folder, dark, format="esperanto", esperanto=HEADER)


def converted(folder: Path, made_with: Recipe) -> tuple[FrameLocation, Path]:
    source, output = FrameLocation(folder / "frame.tif"), folder / "out.tif"
    convert_file(source.file, made_with, output=output, fields={"seq_num": 1})
    return source, output


@pytest.mark.parametrize("make", [recipe, esperanto])
def test_output_of_the_same_recipe_and_masters_is_current(folder: Path, make: Any) -> None:
    source, output = converted(folder, make(folder))
    assert OutputCheck(make(folder)).is_current(source, output)
    shutil.copy(folder / "dark.tif", folder / "copy.tif")
    (folder / "copy.tif").replace(folder / "dark.tif")  # newer, with the same content
    assert OutputCheck(make(folder)).is_current(source, output)


@pytest.mark.parametrize("make", [recipe, esperanto])
@pytest.mark.parametrize("name", ["dark", "mask"])
def test_changed_master_makes_the_output_outdated(folder: Path, make: Any, name: str) -> None:
    source, output = converted(folder, make(folder))
    times = (folder / f"{name}.tif").stat()
    shutil.copy(folder / "other.tif", folder / f"{name}.tif")
    os.utime(folder / f"{name}.tif", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not OutputCheck(make(folder)).is_current(source, output)


@pytest.mark.parametrize("make", [recipe, esperanto])
def test_changed_recipe_makes_the_output_outdated(folder: Path, make: Any) -> None:
    source, output = converted(folder, make(folder))
    assert not OutputCheck(make(folder, "other")).is_current(source, output)
    assert not OutputCheck(Recipe(rotation=90)).is_current(source, output)


def test_missing_master_makes_the_output_outdated(folder: Path) -> None:
    source, output = converted(folder, recipe(folder))
    (folder / "dark.tif").unlink()
    assert not OutputCheck(recipe(folder)).is_current(source, output)


def test_newer_source_makes_the_output_outdated(folder: Path) -> None:
    source, output = converted(folder, recipe(folder))
    os.utime(source.file, ns=(0, output.stat().st_mtime_ns + 1))
    assert not OutputCheck(recipe(folder)).is_current(source, output)


def test_output_of_another_source_is_outdated(folder: Path) -> None:
    source, output = converted(folder, recipe(folder))
    other = FrameLocation(folder / "older.h5", index=3)
    shutil.copy2(source.file, other.file)
    assert not OutputCheck(recipe(folder)).is_current(other, output)


def test_foreign_output_counts_by_its_time(folder: Path) -> None:
    check = OutputCheck(recipe(folder))
    shutil.copy(folder / "other.tif", folder / "out.tif")
    assert check.is_current(FrameLocation(folder / "frame.tif"), folder / "out.tif")
    assert not check.is_current(FrameLocation(folder / "frame.tif"), folder / "none.tif")
