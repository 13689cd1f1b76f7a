"""What a frame says beside its pixels survives a conversion in place, or the conversion is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tango_server.conversion import convert_file
from tango_server.conversion.errors import UnsupportedImageError
from tango_server.conversion.inspection import inspect_file
from tango_server.recipe import Recipe

HEADER = "# Pixel_size 172e-6 m x 172e-6 m\r\n# Silicon sensor, thickness 0.000320 m\r\n# Exposure_time 0.095 s, 25 °C"
TAGS: list[tuple[int, int, int, Any, bool]] = [
    (272, 2, 0, "PILATUS 1M", True),
    (65000, 12, 1, 1.25, True),
    (65001, 4, 3, (1, 2, 70_000), True),
    (65010, 2, 0, "Attr: sample, CeO2", True),
    (65020, 5, 1, (1, 3), True),
]
PIXELS = np.arange(48, dtype=np.uint16).reshape(6, 8)


def in_place(**options: Any) -> Recipe:
    return Recipe.preset("xdi", rotation=90, output={"mode": "in_place", **options})


def tags_of(path: Path, page: int = 0) -> dict[int, Any]:
    with tifffile.TiffFile(path) as file:
        return {tag.code: tag.value for tag in file.pages[page].aspage().tags}


def written(path: Path, byteorder: Any = "<", description: bytes | None = None, tags: Any = TAGS, **more: Any) -> Path:
    text = HEADER.encode() if description is None else description
    tifffile.imwrite(path, PIXELS, description=text, extratags=tags, metadata=None, byteorder=byteorder, **more)
    return path


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", ["none", "deflate"])
def test_header_and_private_tags_survive_in_place(tmp_path: Path, byteorder: str, compression: str) -> None:
    path = written(tmp_path / "a.tif", byteorder)
    before = tags_of(path)
    convert_file(path, in_place().model_copy(update={"compression": compression}))
    after = tags_of(path)
    assert json.loads(after[270])["original"] == HEADER
    for code in (272, 65000, 65001, 65010, 65020):
        assert after[code] == before[code], code
    np.testing.assert_array_equal(tifffile.imread(path), np.rot90(PIXELS))
    assert list(after) == sorted(after)


def test_forced_second_conversion_keeps_the_first_header(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tif")
    before = tags_of(path)
    convert_file(path, in_place())
    convert_file(path, in_place(force=True).model_copy(update={"flip": "1"}))
    after = tags_of(path)
    assert json.loads(after[270])["original"] == HEADER
    assert after[65010] == before[65010]


def test_each_page_keeps_its_own_tags(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for number in range(3):
            tags = [(65010, 2, 0, f"page {number}", True)]
            file.write(PIXELS, description=f"frame {number}", extratags=tags, metadata=None, contiguous=False)
    convert_file(path, in_place())
    assert [tags_of(path, number)[65010] for number in range(3)] == ["page 0", "page 1", "page 2"]
    assert json.loads(tags_of(path)[270])["original"] == "frame 0"
    assert [tags_of(path, number)[270] for number in (1, 2)] == ["frame 1", "frame 2"]


@pytest.mark.parametrize(
    ("description", "tags"),
    [
        (b"x" * 70_000, TAGS),
        (b"\xc3\xa9" * 15_000, TAGS),
        (b"a", [(65001, 13, 1, 8, True)]),
        (b"a", [(65001, 16, 1, 5, True)]),
    ],
    ids=["long", "long when escaped", "directory", "64 bits"],
)
def test_what_does_not_fit_is_refused_without_backup(tmp_path: Path, description: bytes, tags: Any) -> None:
    path = written(tmp_path / "a.tif", description=description, tags=tags)
    before = path.read_bytes()
    with pytest.raises(UnsupportedImageError, match="--backup"):
        convert_file(path, in_place())
    assert path.read_bytes() == before
    assert convert_file(path, in_place(backup=True)).outcome == "converted"
    assert (tmp_path / "a.tif.orig").read_bytes() == before
    assert convert_file(path, in_place(backup=True)).outcome == "skipped"


def test_new_files_keep_the_layout_of_xdi(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tif")
    report = convert_file(path, Recipe.preset("xdi", output={"folder": str(tmp_path / "new")}))
    after = tags_of(Path(report.output or ""))
    assert len(after) == 12
    assert "original" not in json.loads(after[270])


def test_inspect_shows_private_tags_and_the_original(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tif", ">")
    assert inspect_file(path)["tags"][0]["65001"] == "1, 2, 70000"
    convert_file(path, in_place())
    found = inspect_file(path)
    assert found["tags"][0]["65010"] == "Attr: sample, CeO2"
    assert found["provenance"]["original"] == HEADER
