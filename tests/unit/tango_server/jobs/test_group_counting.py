"""The natural order of names, and groups of every n frames."""

from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.jobs.group_counting import counted_groups, frame_order, gaps_in, mixed_in, natural_order

FOLDER = Path("/data/raw")
NAMES = st.text(st.sampled_from("aB-_. 0129٣é\udc80"), min_size=1, max_size=12)
FRAMES = st.builds(
    lambda folder, name, suffix, index: FrameLocation(FOLDER / folder / f"{name}{suffix}", "", index),
    st.sampled_from(["", "s-2", "s-10"]), NAMES, st.sampled_from([".tif", ".cbf", ".h5"]),
    st.none() | st.integers(0, 30),
)  # fmt: skip


def frame(name: str, index: int | None = None) -> FrameLocation:
    return FrameLocation.of(FOLDER / name, index)


def sorted_names(*names: str) -> list[str]:
    return [each.file.name for each in sorted(map(frame, names), key=frame_order)]


@given(st.lists(FRAMES, unique=True, max_size=20), st.integers(2, 6), st.randoms())
def test_groups_do_not_depend_on_the_order_of_paths(frames: list[FrameLocation], every: int, chance: Random) -> None:
    groups = counted_groups(frames, every)
    other = list(frames)
    chance.shuffle(other)
    assert counted_groups([*other, *other[:3]], every) == groups
    assert sorted((each for group in groups for each in group), key=repr) == sorted(frames, key=repr)


@given(st.lists(FRAMES, unique=True, max_size=20), st.integers(2, 6))
def test_groups_are_full_but_the_last_of_a_folder(frames: list[FrameLocation], every: int) -> None:
    groups = counted_groups(frames, every)
    assert all(len({each.file.parent for each in group}) == 1 for group in groups)
    assert all(len(group) <= every for group in groups)
    for group, following in pairwise(groups):
        assert len(group) == every or following[0].file.parent != group[0].file.parent


@given(st.text("abc-_", max_size=3), st.lists(st.tuples(st.integers(0, 10**20), st.integers(0, 3)), max_size=8))
def test_numbers_count_by_their_values(name: str, numbers: list[tuple[int, int]]) -> None:
    names = [f"{name}{'0' * zeros}{number}x" for number, zeros in numbers]
    found = [int(each[len(name) : -1]) for each in sorted(names, key=natural_order)]
    assert found == sorted(number for number, _ in numbers)


@pytest.mark.parametrize(
    "names",
    [
        ("pat-2.tif", "pat-10.tif"),
        ("pat-2.tif", "pat-2-00001.tif", "pat-3.tif"),
        ("pat-02.tif", "pat-2.tif", "pat-03.tif"),
        ("7.tif", "a.tif"),
        ("scan1_2.tif", "scan1_10.tif", "scan2_1.tif"),
        ("a.cbf", "a.tif", "a1.cbf"),
    ],
)
def test_names_are_in_the_order_that_people_expect(names: tuple[str, ...]) -> None:
    assert sorted_names(*names) == list(names)
    assert sorted_names(*names[::-1]) == list(names)


def test_frames_of_containers_are_counted_across_files() -> None:
    frames = [frame(f"run_{number}.h5", index) for number in (10, 9) for index in range(3)]
    groups = counted_groups(frames, 4)
    assert [[(each.file.stem, each.index) for each in group] for group in groups] == [
        [("run_9", 0), ("run_9", 1), ("run_9", 2), ("run_10", 0)],
        [("run_10", 1), ("run_10", 2)],
    ]


def test_data_sets_of_one_file_are_never_mixed() -> None:
    frames = [FrameLocation(FOLDER / "a.h5", name, index) for index in range(3) for name in ("/low", "/high")]
    assert [{each.data_set for each in group} for group in counted_groups(frames, 2)] == [
        {"/high"}, {"/high"}, {"/low"}, {"/low"},
    ]  # fmt: skip


def test_missing_numbers_are_named() -> None:
    frames = [frame(f"pat-{number:05d}.tif") for number in (1, 2, 4, 5, 9, 10, 11, 12)]
    (note,) = gaps_in(frames)
    assert "/data/raw/pat: no frame with number 3, 6, 7 and 1 more." in note


@pytest.mark.parametrize(
    "names",
    [
        ["pat-1.tif", "pat-2.tif", "pat-3.tif"],
        ["pat-120159.tif", "pat-120304.tif", "pat-120511.tif"],  # times of day
        ["a.tif", "b.tif"],
        ["pat-1-1.tif", "pat-2-1.tif"],
    ],
)
def test_names_without_a_gap_are_not_complained_of(names: list[str]) -> None:
    assert gaps_in(map(frame, names)) == []


def test_groups_of_two_series_of_names_are_named() -> None:
    frames = [frame(f"{sample}-{number}.tif") for sample in ("LaB6", "CeO2") for number in range(5)]
    (note,) = mixed_in(frames, 2)
    assert "CeO2-4.tif: its group has frames of CeO2 and LaB6" in note
    assert mixed_in(frames, 5) == []
    assert len(mixed_in([frame(f"{sample:03d}a-{number}.tif") for sample in range(40) for number in range(2)], 3)) == 4
    assert mixed_in([*map(frame, ("a.tif", "b.tif", "pat-1.tif", "pat-1-1.tif", "pat-2.tif"))], 2) == []
