"""A frame with holes costs its backup no more room than itself."""

from pathlib import Path

import numpy as np
import tifffile

from tango_server.conversion import convert_file
from tango_server.recipe import Recipe

IN_PLACE = Recipe.preset("xdi", output={"mode": "in_place", "backup": True})
TERABYTE = 2**40


def test_sparse_terabyte_backs_up_with_its_holes(tmp_path: Path) -> None:
    path, image = tmp_path / "a.tif", np.arange(64, dtype=np.uint16).reshape(8, 8)
    tifffile.imwrite(path, image)
    with path.open("r+b") as file:
        file.seek(TERABYTE // 2)
        file.write(b"in the middle")
        file.truncate(TERABYTE)
    with path.open("rb") as file:
        begin = file.read(4096)
    assert convert_file(path, IN_PLACE).outcome == "converted"
    backup = tmp_path / "a.tif.orig"
    status = backup.stat()
    assert status.st_size == TERABYTE
    assert status.st_blocks * 512 < 2**20
    with backup.open("rb") as file:
        assert file.read(4096) == begin
        file.seek(TERABYTE // 2)
        assert file.read(13) == b"in the middle"
    np.testing.assert_array_equal(tifffile.imread(path), image)


def test_backup_holds_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.random.default_rng(15).integers(0, 60_000, (1500, 1500), np.uint16))
    before = path.read_bytes()
    convert_file(path, IN_PLACE)
    assert (tmp_path / "a.tif.orig").read_bytes() == before
