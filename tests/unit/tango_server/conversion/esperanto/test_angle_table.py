"""Angles from a table."""

from pathlib import Path

import pytest

from tango_server.conversion.esperanto.angle_table import AngleTableError, fields_of, read_angle_table
from tango_server.recipe.esperanto import Esperanto


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "angles.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_angles_of_each_file(tmp_path: Path, delimiter: str) -> None:
    lines = [
        "# of the log book", "file,omega_start,omega_end,phi,exposure", "a-1.tif,-10,-9.5,30,0.5", "",
        "raw/a-2.tif , -9.5,-9 ,30,",
    ]  # fmt: skip
    text = "\n".join(lines)
    found = read_angle_table(table(tmp_path, "\ufeff" + text.replace(",", delimiter)))
    assert found.circles == {"omega": {"start": "omega_start", "end": "omega_end"}, "phi": {"center": "phi"}}
    assert Esperanto.model_validate(found.circles).circles.keys() == {"omega", "phi"}
    assert fields_of(found, Path("/data/raw/a-1.tif"), 1) == {
        "omega_start": -10.0, "omega_end": -9.5, "phi": 30.0, "exposure": 0.5, "seq_num": 1,
    }  # fmt: skip
    assert "exposure" not in found.of(Path("a-2.tif"))
    with pytest.raises(AngleTableError, match=r"no line for a-3\.tif"):
        found.of(Path("a-3.tif"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("# nothing\n", "empty"),
        ("name,omega\na.tif,1\n", "name, omega.*must be named file"),
        ("file,omega,omega\na.tif,1,2\n", "file, omega, omega.*occur twice"),
        ("file,temperature\na.tif,1\n", "file, temperature"),
        ("file,omega\na.tif,1,2\n", "line 2: 3 values for 2"),
        ("file,omega\na.tif,one\n", "line 2: omega .*'one'"),
        ("file,omega\na.tif,nan\n", "line 2: omega .*'nan'"),
        ("file,omega\na.tif,1\nb/a.tif,2\n", r"line 3: a\.tif occurs twice"),
    ],
)
def test_error_names_the_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(AngleTableError, match=words):
        read_angle_table(table(tmp_path, text))


def test_non_text_file_is_reported(tmp_path: Path, data: Path) -> None:
    with pytest.raises(AngleTableError, match="cannot read"):
        read_angle_table(data / "qxrd_f32_64.tif")
    with pytest.raises(AngleTableError, match="cannot read"):
        read_angle_table(tmp_path)
