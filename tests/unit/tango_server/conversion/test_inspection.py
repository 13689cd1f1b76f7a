"""What an inspection shows of corrected frames."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from tango_server.commands.inspect import inspect
from tango_server.conversion import convert_file
from tango_server.conversion.inspection import inspect_file
from tango_server.recipe import Recipe

HEADER = {"wavelength": 0.3, "distance": 300, "pixel_size": 0.2, "beam_center": (128, 128), "exposure": 1,
          "omega": {"start": 0, "step": 1}}  # fmt: skip


@pytest.mark.parametrize("format_", ["tiff", "esperanto"])
def test_masters_and_pixels_are_shown(tmp_path: Path, format_: str) -> None:
    image = np.full((256, 256), 50, np.uint16)
    image[0, :3] = 900
    for name, pixels in (("a", image), ("dark", image // 10), ("mask", image == 0)):
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels.astype(np.uint16))
    mask = np.zeros((256, 256), np.uint8)
    mask[7, :2] = 1
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    corrections = {"dark": str(tmp_path / "dark.tif"), "mask": str(tmp_path / "mask.tif"), "saturation": 800}
    header = HEADER if format_ == "esperanto" else None
    output = tmp_path / "out.tif"
    recipe = Recipe(format=format_, esperanto=header, corrections=corrections)
    report = convert_file(tmp_path / "a.tif", recipe, output=output, fields={"seq_num": 1})
    found = inspect_file(output)["provenance"]
    assert (found["masked"], found["overexposed"]) == (2, 3)
    assert [master["kind"] for master in found["masters"]] == ["dark", "mask"]
    for shown, used in zip(found["masters"], report.masters, strict=True):
        assert used.sha256.startswith(shown["sha256"])
        assert len(shown["sha256"]) >= 12
    printed = CliRunner().invoke(inspect, [str(output)]).stdout
    assert "2 masked, 3 overexposed" in printed
    assert all(master.sha256[:12] in printed for master in report.masters)
    assert (str(tmp_path / "dark.tif") in printed) == (format_ == "tiff")


def test_frames_without_corrections_show_none(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((4, 4), np.uint16))
    convert_file(tmp_path / "a.tif", Recipe(), output=tmp_path / "out.tif")
    assert not {"masters", "masked", "overexposed"} & inspect_file(tmp_path / "out.tif")["provenance"].keys()
