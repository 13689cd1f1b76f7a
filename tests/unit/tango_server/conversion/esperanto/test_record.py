"""What an ESPERANTO frame says of the recipe that it was made with."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from tango_server.commands.inspect import inspect
from tango_server.conversion import convert_file
from tango_server.conversion.esperanto.reading import read_esperanto, read_header
from tango_server.conversion.esperanto.record import history, provenance_in
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.image.orientation import Orientation
from tango_server.conversion.inspection import inspect_file
from tango_server.messages import FrameReport
from tango_server.monitor.images import read_pair
from tango_server.recipe import Recipe
from tango_server.recipe.words import recipe_words

GEOMETRY = {"wavelength": 0.29, "distance": 300.0, "pixel_size": 0.2, "beam_center": (30.0, 31.5), "exposure": 0.5}
TURNS: list[dict[str, Any]] = [{}, {"rotation": 0, "flip": "1"}, {"rotation": 180, "flip": "both"}]


def recipe(**changes: Any) -> Recipe:
    return Recipe.preset("esperanto", esperanto={**GEOMETRY, "omega": 1.5}, **changes)


def converted(tmp_path: Path, changes: dict[str, Any]) -> FrameReport:
    (tmp_path / "raw").mkdir()
    source = tmp_path / "raw" / "pat-00017.tif"
    tifffile.imwrite(source, np.arange(256 * 256, dtype=np.float32).reshape(256, 256))
    return convert_file(source, recipe(**changes))


def as_before(output: Path) -> None:
    """Make the frame one of an earlier version, which told no orientation."""
    text = output.read_bytes()
    line = read_header(output).history.encode()
    words = [word for word in line.split(b" ") if not word.startswith((b"rotation=", b"flip="))]
    output.write_bytes(text.replace(line + b'"', (b" ".join(words) + b'"').ljust(len(line) + 1), 1))


@pytest.mark.parametrize("changes", TURNS)
def test_monitor_and_inspection_report_the_orientation(tmp_path: Path, changes: dict[str, Any]) -> None:
    report = converted(tmp_path, changes)
    used, output = recipe(**changes), Path(report.output or "")
    pair = read_pair(report)
    assert pair.recipe is not None
    assert recipe_words(pair.recipe) == recipe_words(used)
    assert pair.orientation == Orientation.of(used)
    assert pair.raw.image is not None
    np.testing.assert_array_equal(pair.orientation.apply(pair.raw.image), read_esperanto(output)[1])
    told = inspect_file(output)["provenance"]
    assert told["recipe"] == {"format": "esperanto", "rotation": used.rotation, "flip": used.flip}
    assert told["content_hash"] == used.content_hash


def test_nothing_is_made_up_for_earlier_frames(tmp_path: Path) -> None:
    report = converted(tmp_path, {"flip": "0"})
    output = Path(report.output or "")
    as_before(output)
    pair = read_pair(report)
    assert pair.converted.image is not None, pair.converted.text
    assert (pair.recipe, pair.orientation) == (None, None)
    told = json.loads(CliRunner().invoke(inspect, ["--json", str(output)]).stdout)["provenance"]
    assert (told["recipe"], told["source"]) == (None, "pat-00017.tif")
    assert told["content_hash"] == recipe(flip="0").content_hash


def test_only_the_whole_recipe_matches() -> None:
    text = history(recipe(), FrameLocation(Path("/raw/a.tif")), Path("/processed/a_1_1.esperanto"), job="1f2e")
    record = provenance_in(text)
    assert record is not None
    assert record.matches(recipe())
    assert not record.matches(recipe(rounding="nearest"))
