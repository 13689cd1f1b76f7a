"""Where groups of a batch go, and which are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.jobs.group_planning import PlannedGroup, plan_groups
from tango_server.jobs.planning import Counting
from tango_server.recipe import Recipe

HEADER = {"wavelength": 0.3, "distance": 300, "pixel_size": 0.2, "beam_center": (128, 128), "exposure": 1,
          "omega": {"start": 0, "step": 1}}  # fmt: skip


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def combining(every: int = 2, preset: str = "xdi", **changes: Any) -> Recipe:
    on_incomplete = changes.pop("on_incomplete", "fail")
    combine = {"of": {"every": every}, "method": "sum", "on_incomplete": on_incomplete}
    return Recipe.preset(preset, combine=combine, **changes)


def written(raw: Path, *names: str) -> list[FrameLocation]:
    for name in names:
        (raw / name).parent.mkdir(exist_ok=True)
        tifffile.imwrite(raw / name, np.zeros((256, 256), np.uint16))
    return [FrameLocation(raw / name) for name in names]


def names(groups: list[PlannedGroup]) -> list[str]:
    return [each.output.name if each.output else each.problem.rpartition(": ")[2] for each in groups]


def test_group_is_named_by_its_first_member(raw: Path) -> None:
    groups = plan_groups(written(raw, "a10.tif", "a9.tif", "a8.tif", "a11.tif"), combining())
    assert names(groups) == ["a8.tif", "a10.tif"]
    assert [each.name for each in groups] == ["1", "2"]
    assert [[member.source.file.name for member in each.members] for each in groups] == [
        ["a8.tif", "a9.tif"], ["a10.tif", "a11.tif"],
    ]  # fmt: skip


@pytest.mark.parametrize("first", [0, 1, 17])
def test_esperanto_groups_are_numbered_one_by_one(raw: Path, first: int) -> None:
    frames = written(raw, *(f"pat-{number:05d}.tif" for number in range(first, first + 6)))
    groups = plan_groups(frames, combining(3, "esperanto", esperanto=HEADER))
    assert names(groups) == ["pat_1_1.esperanto", "pat_1_2.esperanto"]
    assert [member.fields["seq_num"] for each in groups for member in each.members] == [1, 2, 3, 4, 5, 6]


def test_esperanto_groups_count_by_the_chosen_number(raw: Path) -> None:
    frames = written(raw, *(f"pat_{number}_300.tif" for number in (1, 2, 3, 4)))
    recipe = combining(2, "esperanto", esperanto=HEADER)
    groups = plan_groups(frames, recipe, counting=Counting(frame_number=1))
    assert names(groups) == ["pat_1_1.esperanto", "pat_1_2.esperanto"]


def test_frames_without_fields_are_members_with_a_problem(raw: Path) -> None:
    frames = [*written(raw, "a1.tif"), FrameLocation(raw / "a2.tif")]
    (group,) = plan_groups(frames, combining(on_incomplete="combine"))
    assert [bool(each.problem) for each in group.members] == [False, True]
    assert "a2.tif: no such file" in group.members[1].problem
    assert group.output_made == raw.parent / "processed" / "a1_1of2.tif"


def test_file_of_unknown_length_spoils_what_follows_in_its_folder(raw: Path) -> None:
    folders = [raw / "one", raw / "two"]
    frames = [FrameLocation(folder / f"run_{number}.h5", "", 0) for folder in folders for number in (1, 2, 4, 5)]
    for folder in folders:
        folder.mkdir()
    for frame in frames:
        frame.file.touch()
    damaged = FrameLocation(raw / "one" / "run_3.h5")
    groups = plan_groups(frames, combining(), uncounted={damaged: "run_3.h5: it is cut"})
    assert [bool(each.problem) for each in groups] == [False, True, False, False]
    assert "run_4.h5 frame 0: cannot combine: it is unknown how many frames" in groups[1].problem
    assert "run_3.h5: it is cut" in groups[1].problem
    last = FrameLocation(raw / "two" / "run_6.h5")
    groups = plan_groups(frames[:-1], combining(on_incomplete="combine"), uncounted={last: "cut"})
    assert [bool(each.problem) for each in groups] == [False, False, False, True]


def test_recipe_that_needs_a_run_is_refused(raw: Path) -> None:
    recipe = Recipe.preset("xdi", combine={"of": "run", "method": "sum"})
    with pytest.raises(ValueError, match="without the documents of a run"):
        plan_groups(written(raw, "a1.tif"), recipe)
