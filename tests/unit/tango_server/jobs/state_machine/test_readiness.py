"""When a file counts as complete: the rule, fed with real files and hand-made readings of the clock."""

import os
import shutil
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from petif_bluesky.sim.qxrd_file import Stage, write_stages
from tango_server.conversion.errors import SourceMissingError
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.jobs.file_checks import state_of
from tango_server.jobs.state_machine.events import Instant
from tango_server.jobs.state_machine.readiness import ReadinessRule, Verdict, Wait, judge
from tests.conftest import DATA, QXRD_FILES, UNFINISHED_FILES

START = 5000.0
DAMAGED_FILES = (*UNFINISHED_FILES, "truncated_tail.tif", "empty.tif")
IMAGE = np.arange(96, dtype="float32").reshape(8, 12)
ACQUIRED = datetime(2024, 5, 17, 12, 34, 56)
UNFINISHED_STAGES = [stage for stage in Stage if stage is not Stage.IFD]


class Watcher:
    """Looks at files as the service does; instants count from the moment of acceptance."""

    def __init__(self, rule: ReadinessRule) -> None:
        self._rule = rule
        self._wait = Wait(since=START)

    def look(self, path: Path, at: float, trouble: str = "") -> Verdict:
        try:
            state = None if trouble else state_of(FrameLocation(path))
        except SourceMissingError:
            state = None
        self._wait, verdict = judge(self._rule, self._wait, state, trouble, Instant(START + at, 1.7e9 + at))
        return verdict

    def follow(self, path: Path) -> tuple[list[float], Verdict]:
        """Return when the file was looked at, each time at the instant that was asked for, and the last verdict."""
        instants = [0.0]
        while (verdict := self.look(path, instants[-1])).kind == "wait":
            instants.append(verdict.again - START)
        return instants, verdict


@pytest.fixture
def ifd_first(tmp_path: Path) -> Path:
    """A complete file of a writer that puts the directory before the pixels."""
    path = tmp_path / "ifd_first.tif"
    tifffile.imwrite(path, IMAGE)
    assert not state_of(FrameLocation(path)).proof
    return path


@pytest.fixture
def qxrd(tmp_path: Path) -> Path:
    return Path(shutil.copy(DATA / "qxrd_f32_64.tif", tmp_path / "frame.tif"))


@pytest.mark.parametrize("name", QXRD_FILES)
def test_complete_qxrd_file_is_ready_at_the_first_check(name: str) -> None:
    assert Watcher(ReadinessRule()).look(DATA / name, at=0.0).kind == "ready"


def test_complete_qxrd_file_is_ready_even_after_the_deadline() -> None:
    assert Watcher(ReadinessRule(timeout=15.0)).look(DATA / QXRD_FILES[0], at=100.0).kind == "ready"


@pytest.mark.parametrize("name", DAMAGED_FILES)
def test_unfinished_file_is_given_up_at_the_deadline(name: str) -> None:
    watcher = Watcher(ReadinessRule(timeout=15.0))
    assert {watcher.look(DATA / name, at).kind for at in (0.0, 0.5, 4.0, 14.999)} == {"wait"}
    verdict = watcher.look(DATA / name, at=15.0)
    assert verdict.kind == "give_up"
    assert "not complete within 15 s" in verdict.reason
    assert state_of(FrameLocation(DATA / name)).problem in verdict.reason


@pytest.mark.parametrize("name", ["a.tif", "/data/raw/sample/frame-00001.tif"], ids=["short name", "long name"])
@pytest.mark.parametrize("last", UNFINISHED_STAGES)
def test_qxrd_file_that_stops_growing_early_is_never_ready(last: Stage, name: str, tmp_path: Path) -> None:
    path = tmp_path / "frame.tif"
    watcher = Watcher(ReadinessRule(settle_time=3.0, timeout=300.0))
    for stage in write_stages(path, IMAGE, document_name=name, acquired=ACQUIRED):
        if stage is last:
            break
    assert [watcher.look(path, at).kind for at in (0.0, 3.0, 299.0)] == ["wait", "wait", "wait"]


@pytest.mark.parametrize("pixel_type", ["float32", "uint16", "uint32"])
def test_a_growing_qxrd_file_is_ready_at_once_with_its_last_stage(pixel_type: str, tmp_path: Path) -> None:
    path = tmp_path / "frame.tif"
    watcher = Watcher(ReadinessRule())
    stages = write_stages(path, IMAGE.astype(pixel_type), document_name=str(path), acquired=ACQUIRED)
    kinds = {stage: watcher.look(path, at=0.1 * number).kind for number, stage in enumerate(stages)}
    assert kinds.pop(Stage.IFD) == "ready"
    assert set(kinds.values()) == {"wait"}


def test_awaited_qxrd_file_is_ready_as_soon_as_it_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "frame.tif"
    shutil.copy(DATA / UNFINISHED_FILES[0], path)
    watcher = Watcher(ReadinessRule())
    assert watcher.look(path, at=1.0).kind == "wait"
    shutil.copy(DATA / "qxrd_f32_64.tif", path)
    assert watcher.look(path, at=1.1).kind == "ready"


def test_ifd_first_file_is_ready_after_settle_time_unchanged(ifd_first: Path) -> None:
    watcher = Watcher(ReadinessRule(settle_time=3.0))
    assert watcher.look(ifd_first, at=1.0).kind == "wait"
    assert watcher.look(ifd_first, at=3.9).kind == "wait"
    assert watcher.look(ifd_first, at=4.0).kind == "ready"


@pytest.mark.parametrize("name", ["fabio_int32_64.tif", "not_a_tiff.tif"])
def test_unchanged_file_is_ready_at_the_requested_next_check(name: str) -> None:
    instants, verdict = Watcher(ReadinessRule(settle_time=3.0)).follow(DATA / name)
    assert verdict.kind == "ready"
    assert instants[-1] == pytest.approx(3.0, abs=0.05)


def test_new_mtime_restarts_the_settle_time(ifd_first: Path) -> None:
    watcher = Watcher(ReadinessRule(settle_time=3.0))
    assert watcher.look(ifd_first, at=0.0).kind == "wait"
    os.utime(ifd_first, (1_000_000_000, 1_000_000_000))
    assert watcher.look(ifd_first, at=2.0).kind == "wait"
    assert watcher.look(ifd_first, at=4.9).kind == "wait"
    assert watcher.look(ifd_first, at=5.0).kind == "ready"


def test_growth_without_a_new_mtime_restarts_the_settle_time(ifd_first: Path) -> None:
    watcher = Watcher(ReadinessRule(settle_time=3.0))
    status = ifd_first.stat()
    assert watcher.look(ifd_first, at=0.0).kind == "wait"
    with ifd_first.open("ab") as file:
        file.write(bytes(100))
    os.utime(ifd_first, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert watcher.look(ifd_first, at=2.0).kind == "wait"
    assert watcher.look(ifd_first, at=4.9).kind == "wait"
    assert watcher.look(ifd_first, at=5.0).kind == "ready"


def test_replacement_of_equal_size_and_mtime_restarts_settle_time(ifd_first: Path, tmp_path: Path) -> None:
    watcher = Watcher(ReadinessRule(settle_time=3.0))
    assert watcher.look(ifd_first, at=0.0).kind == "wait"
    other = Path(shutil.copy2(ifd_first, tmp_path / "other.tif"))
    other.replace(ifd_first)
    assert watcher.look(ifd_first, at=2.0).kind == "wait"
    assert watcher.look(ifd_first, at=4.9).kind == "wait"
    assert watcher.look(ifd_first, at=5.0).kind == "ready"


def test_file_that_disappears_and_returns_restarts_settle_time(ifd_first: Path, tmp_path: Path) -> None:
    watcher = Watcher(ReadinessRule(settle_time=3.0))
    away = tmp_path / "away.tif"
    assert watcher.look(ifd_first, at=0.0).kind == "wait"
    ifd_first.rename(away)
    assert watcher.look(ifd_first, at=1.0).kind == "wait"
    away.rename(ifd_first)
    assert watcher.look(ifd_first, at=2.0).kind == "wait"
    assert watcher.look(ifd_first, at=4.9).kind == "wait"
    assert watcher.look(ifd_first, at=5.0).kind == "ready"


@pytest.mark.parametrize("instant", [0, 4_000_000_000], ids=["1970", "2096"])
def test_timestamps_of_a_wrong_file_server_clock_change_nothing(ifd_first: Path, instant: int) -> None:
    os.utime(ifd_first, (instant, instant))
    watcher = Watcher(ReadinessRule(settle_time=3.0))
    assert [watcher.look(ifd_first, at).kind for at in (0.0, 2.9, 3.0)] == ["wait", "wait", "ready"]


def test_settle_complete_requires_complete_qxrd_file_unchanged(qxrd: Path) -> None:
    watcher = Watcher(ReadinessRule(settle_time=3.0, settle_complete=1.0))
    assert [watcher.look(qxrd, at).kind for at in (0.0, 0.9, 1.0)] == ["wait", "wait", "ready"]


def test_settle_complete_begins_anew_with_a_change(qxrd: Path) -> None:
    watcher = Watcher(ReadinessRule(settle_complete=1.0))
    assert watcher.look(qxrd, at=0.0).kind == "wait"
    os.utime(qxrd, (1_000_000_000, 1_000_000_000))
    assert [watcher.look(qxrd, at).kind for at in (0.8, 1.7, 1.8)] == ["wait", "wait", "ready"]


def test_settle_complete_does_not_apply_to_ifd_first_files(ifd_first: Path) -> None:
    watcher = Watcher(ReadinessRule(settle_time=3.0, settle_complete=0.0))
    assert watcher.look(ifd_first, at=0.0).kind == "wait"


def test_what_is_no_tiff_goes_to_the_conversion_only_when_it_is_still() -> None:
    watcher = Watcher(ReadinessRule(settle_time=3.0))
    kinds = [watcher.look(DATA / "not_a_tiff.tif", at).kind for at in (0.0, 2.9, 3.0)]
    assert kinds == ["wait", "wait", "ready"]


@pytest.mark.parametrize(("surplus", "kind"), [(-1, "wait"), (0, "ready"), (1, "ready")])
def test_a_complete_file_smaller_than_min_size_is_not_ready(surplus: int, kind: str, qxrd: Path) -> None:
    watcher = Watcher(ReadinessRule(min_size=qxrd.stat().st_size - surplus))
    assert watcher.look(qxrd, at=0.0).kind == kind


def test_min_size_alone_makes_no_unfinished_file_ready() -> None:
    watcher = Watcher(ReadinessRule(min_size=1, timeout=15.0))
    assert watcher.look(DATA / "unfinished_no_ifd.tif", at=14.0).kind == "wait"


@pytest.mark.parametrize(
    ("name", "rule", "found"),
    [
        ("never_written.tif", ReadinessRule(timeout=2.0), "no such file"),
        ("empty.tif", ReadinessRule(timeout=2.0), "only 0 bytes"),
        ("unfinished_no_ifd_zero_offset.tif", ReadinessRule(timeout=2.0), "directory is not written yet"),
        ("qxrd_r16_64.tif", ReadinessRule(timeout=2.0, min_size=9000), "8366 bytes, min_size is 9000"),
        ("fabio_int32_64.tif", ReadinessRule(timeout=2.0, settle_time=3.0), "less than 3 s"),
        ("qxrd_r16_64.tif", ReadinessRule(timeout=2.0, settle_complete=2.5), "less than 2.5 s"),
    ],
    ids=["missing", "empty", "no directory", "too small", "not still", "complete but not still"],
)
def test_the_reason_at_the_deadline_names_what_was_found_last(name: str, rule: ReadinessRule, found: str) -> None:
    instants, verdict = Watcher(rule).follow(DATA / name)
    assert instants[-1] == 2.0
    assert verdict.kind == "give_up"
    assert verdict.reason.startswith("not complete within 2 s: ")
    assert found in verdict.reason
    assert "RetryFailed" in verdict.reason


def test_reason_at_the_deadline_is_that_of_the_last_check(tmp_path: Path) -> None:
    path = tmp_path / "frame.tif"
    watcher = Watcher(ReadinessRule(timeout=15.0))
    watcher.look(path, at=0.0)
    shutil.copy(DATA / "empty.tif", path)
    reason = watcher.look(path, at=15.0).reason
    assert "only 0 bytes" in reason
    assert "no such file" not in reason


def test_file_that_cannot_be_opened_is_awaited_and_reason_is_named(tmp_path: Path) -> None:
    watcher = Watcher(ReadinessRule(timeout=15.0))
    assert watcher.look(tmp_path, at=0.0, trouble="it can't be read (Permission denied)").kind == "wait"
    verdict = watcher.look(tmp_path, at=15.0, trouble="it can't be read (Permission denied)")
    assert verdict.kind == "give_up"
    assert "Permission denied" in verdict.reason


def test_zero_timeout_gives_up_a_missing_file_at_the_first_check(tmp_path: Path) -> None:
    assert Watcher(ReadinessRule(timeout=0.0)).look(tmp_path / "frame.tif", at=0.0).kind == "give_up"


@given(timeout=st.floats(0.001, 400.0))
def test_checks_for_a_missing_file_slow_down_until_the_deadline(timeout: float) -> None:
    instants, verdict = Watcher(ReadinessRule(timeout=timeout)).follow(DATA / "never_written.tif")
    assert verdict.kind == "give_up"
    assert instants[-1] == pytest.approx(timeout, abs=1e-9)
    pauses = [later - earlier for earlier, later in pairwise(instants)]
    assert all(later >= earlier - 1e-9 for earlier, later in pairwise(pauses[:-1]))
    assert max(pauses) <= 0.5 + 1e-9
    assert pauses[0] <= 0.05
    assert len(pauses) <= 50 + 2 * timeout


@given(settle_time=st.floats(0.0, 30.0), timeout=st.floats(0.0, 30.0))
def test_checks_end_with_the_settle_time_or_the_deadline(settle_time: float, timeout: float) -> None:
    rule = ReadinessRule(settle_time=settle_time, timeout=timeout)
    instants, verdict = Watcher(rule).follow(DATA / "fabio_int32_64.tif")
    assert instants == sorted(instants)
    assert instants[-1] <= timeout + 1e-9
    if verdict.kind == "ready":
        assert settle_time - 1e-9 <= instants[-1] <= settle_time + 0.05
    else:
        assert instants[-1] == pytest.approx(timeout, abs=1e-9)
        assert timeout <= settle_time + 0.05


def test_by_age_old_file_is_complete_and_young_one_must_settle(tmp_path: Path) -> None:
    path = tmp_path / "unfinished.tif"
    shutil.copy(DATA / UNFINISHED_FILES[0], path)
    rule = ReadinessRule(settle_time=3.0, by_age=True)
    os.utime(path, (0, 1.7e9 - 3.0))
    assert Watcher(rule).look(path, 0.0).kind == "ready"
    os.utime(path, (0, 1.7e9 + 1000))  # by a file server whose clock is ahead
    watcher = Watcher(rule)
    assert watcher.look(path, 0.0).kind == "wait"
    assert watcher.look(path, 2.9).kind == "wait"
    assert watcher.look(path, 3.0).kind == "ready"
