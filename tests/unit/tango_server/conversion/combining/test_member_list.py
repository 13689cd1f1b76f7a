"""The list beside a combined frame: whose frames it has, and what is no list of it."""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from tango_server.commands.inspect import inspect
from tango_server.conversion.combining.group import Member, convert_group
from tango_server.conversion.combining.member_list import member_list_path
from tango_server.conversion.errors import OutputWriteError
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.inspection import inspect_file
from tango_server.recipe import Recipe
from tests.unit.full_disk import no_file_grows_beyond

SUM = Recipe.model_validate({"combine": {"of": "run", "method": "sum", "on_incomplete": "combine"}})


def combined(folder: Path, names: tuple[str, ...], recipe: Recipe = SUM) -> Path:
    members = []
    for name in names:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        tifffile.imwrite(path, np.ones((4, 5), np.uint16))
        members.append(Member(FrameLocation(path)))
    return Path(convert_group(members, recipe).output or "")


def test_it_moves_with_the_files_and_opens_as_a_table(tmp_path: Path) -> None:
    names = ('a "1", new\nline.tif', "b\udcff.tif" if os.name != "nt" else "b.tif", "\u00fc.tif")
    (tmp_path / "here").mkdir()
    combined(tmp_path / "here" / "raw", names)
    moved = (tmp_path / "here").rename(tmp_path / "there") / "processed" / names[0]
    with member_list_path(moved).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{"frame": f"../raw/{name}", "outcome": "grouped", "reason": ""} for name in names]
    found = inspect_file(moved)
    assert [Path(each["source"]).name for each in found["members"]] == list(names)
    shown = CliRunner().invoke(inspect, ["--json", str(moved)]).output
    assert json.loads(shown)["members"] == found["members"]


def drop_a_line(text: str) -> str:
    return text[: text.rindex("\n", 0, -1) + 1]


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (drop_a_line, "not the list"),
        (lambda text: text.replace("a.tif", "c.tif"), "the list of other frames"),
        (lambda text: text.replace("grouped", "failed", 1), "the list of other frames"),
        (lambda text: text.replace("outcome", "what", 1), "not the list"),
        (lambda text: text + '"', "cannot read"),
        (lambda text: text + "x" * 200_000, "cannot read"),
        (lambda text: text[:0], "cannot read"),
        (lambda text: "\0" + text, "not the list"),
        (None, "is missing"),
    ],
)
def test_list_of_other_frames_is_named_and_not_shown(
    tmp_path: Path, changed: Callable[[str], str] | None, problem: str
) -> None:
    output = combined(tmp_path / "raw", ("a.tif", "b.tif"))
    beside = member_list_path(output)
    if changed is None:
        beside.unlink()
    else:
        beside.write_text(changed(beside.read_text()))
    found: dict[str, Any] = inspect_file(output)
    assert (found["state"], found["members"]) == ("complete", [])
    assert problem in found["members_problem"]
    assert found["members_problem"] in CliRunner().invoke(inspect, [str(output)]).output


def test_group_without_its_list_fails_and_another_attempt_writes_both(tmp_path: Path) -> None:
    members = [Member(FrameLocation(tmp_path / "raw" / f"{number:0100d}.tif")) for number in range(40)]
    (tmp_path / "raw").mkdir()
    for each in members:
        tifffile.imwrite(each.location.file, np.ones((4, 5), np.uint16))
    with no_file_grows_beyond(2000), pytest.raises(OutputWriteError, match=r"members\.csv: cannot write"):
        convert_group(members, SUM, job="4f3c")
    report = convert_group(members, SUM, job="4f3c")
    assert (report.outcome, report.reason) == ("converted", "")
    assert len(inspect_file(Path(report.output or ""))["members"]) == 40
