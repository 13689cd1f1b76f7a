"""Room in the queue and on the disks."""

import shutil
from pathlib import Path

import pytest

from tango_server.jobs.capacity import BacklogFullError, DiskFullError, FreeSpace, Limits, NoRoomError, measure

LIMITS = Limits(backlog=100, free_space=10**9, free_space_warning=20 * 10**9)
PLENTY = FreeSpace(50 * 10**9, Path("/data"))


@pytest.mark.parametrize(("waiting", "coming"), [(0, 0), (0, 100), (99, 1), (100, 0)])
def test_there_is_room_up_to_the_limit(waiting: int, coming: int) -> None:
    LIMITS.require_room(waiting, coming, PLENTY)


@pytest.mark.parametrize(("waiting", "coming"), [(100, 1), (1, 100), (200, 1)])
def test_full_queue_error_has_the_length_and_the_remedy(waiting: int, coming: int) -> None:
    words = rf"{coming} frames?: .*holds {waiting}.*backlog_limit is 100.*QueueLength"
    with pytest.raises(BacklogFullError, match=words):
        LIMITS.require_room(waiting, coming, PLENTY)


def test_call_larger_than_the_queue_is_asked_to_split() -> None:
    with pytest.raises(BacklogFullError, match=r"101 frames in one call.*backlog_limit is 100.*several calls"):
        LIMITS.require_room(0, 101, PLENTY)


def test_full_disk_error_has_folder_space_and_remedy() -> None:
    nearly_full = FreeSpace(20_000_000, Path("/data/processed"))
    with pytest.raises(DiskFullError, match=r"/data/processed: only 20\.0 MB .*free_space_limit \(1\.0 GB\)"):
        LIMITS.require_room(0, 0, nearly_full)


def test_both_refusals_mean_that_the_same_call_may_succeed_later() -> None:
    assert issubclass(BacklogFullError, NoRoomError)
    assert issubclass(DiskFullError, NoRoomError)


@pytest.mark.parametrize(
    ("free", "warned", "refused"),
    [
        (20 * 10**9, False, False),
        (20 * 10**9 - 1, True, False),
        (10**9, True, False),
        (10**9 - 1, True, True),
        (0, True, True),
        (None, False, False),
    ],
)
def test_the_disk_is_warned_of_before_it_is_refused(free: int | None, warned: bool, refused: bool) -> None:
    space = FreeSpace(free, Path("/data"))
    assert bool(LIMITS.disk_warning(space)) == warned
    assert bool(LIMITS.disk_problem(space)) == refused


def test_a_warning_names_the_folder_and_what_will_happen() -> None:
    text = LIMITS.disk_warning(FreeSpace(15_300_000_000, Path("/data")))
    assert text.startswith("/data: only 15.3 GB free")
    assert "below 1.0 GB" in text


def close_to(measured: int | None, folder: Path) -> bool:
    """Whether it is what the file system says, but for what others write meanwhile."""
    return measured is not None and abs(measured - shutil.disk_usage(folder).free) < 10**9


def test_the_free_space_is_that_of_the_file_system(tmp_path: Path) -> None:
    space = measure([tmp_path])
    assert space.folder == tmp_path
    assert close_to(space.free, tmp_path)


def test_missing_folder_counts_as_its_nearest_existing_parent(tmp_path: Path) -> None:
    space = measure([tmp_path / "processed" / "sample" / "scan"])
    assert space.folder == tmp_path / "processed" / "sample" / "scan"
    assert close_to(space.free, tmp_path)


def test_folder_that_cannot_be_queried_is_left_out(tmp_path: Path) -> None:
    unusable = tmp_path / ("x" * 5000)
    assert measure([unusable]) == FreeSpace()
    assert measure([unusable, tmp_path]).folder == tmp_path


def test_without_folders_nothing_is_known() -> None:
    assert measure([]) == FreeSpace()
    LIMITS.require_room(0, 1, FreeSpace())


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_the_fullest_of_several_file_systems_counts(tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if tmp_path.stat().st_dev == other.stat().st_dev:
        pytest.skip("both folders are on one file system")
    fullest = min((tmp_path, other), key=lambda folder: shutil.disk_usage(folder).free)
    assert measure([tmp_path, other]).folder == fullest
    assert measure([other, tmp_path]).folder == fullest
