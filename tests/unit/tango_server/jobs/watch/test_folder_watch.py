"""A real watch over real folders, on the real job service; only its worker processes are replaced, by none."""

import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tango_server.jobs.capacity import BacklogFullError
from tango_server.jobs.executors import worker
from tango_server.jobs.executors.base import Done
from tango_server.jobs.executors.worker import Task
from tango_server.jobs.frame_listing import FrameLister, Listing
from tango_server.jobs.runner import JobRunner
from tango_server.jobs.startup import open_database
from tango_server.jobs.watch.folder_watch import STORE_NAME, FolderWatch, rules_from
from tango_server.jobs.watch.watcher import CHECKS_PER_SCAN
from tango_server.messages import FrameReport, SubmitAnswer, SubmitQuery
from tango_server.recipe import Recipe
from tango_server.settings import Settings
from tests.unit.tango_server.conversion.lambda_detector.made_files import frames_of, write_module

PATIENCE = 30.0
INTERVAL = 0.02


class AtOnce:
    """Converts in the thread that asks for it."""

    def start(self, task: Task, done: Done) -> None:
        done(worker.run(task))

    def close(self, timeout: float) -> None:
        del timeout


class Service(JobRunner):
    """The job service, with what a test needs to see and to prevent."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, open_database(settings), AtOnce(), lambda _: None)
        self.full = False
        self.asked: list[str] = []
        self.hanging: Path | None = None
        self.released = threading.Event()
        self._submit, self._source = self.intake.submit, self.intake.source
        self.intake.submit, self.intake.source = self.submit, self.source  # type: ignore[method-assign]

    def submit(self, query: SubmitQuery) -> SubmitAnswer:
        self.asked += [Path(request["source"]).name for request in query.requests]
        if self.full:
            raise BacklogFullError("the queue is full")
        return self._submit(query)

    def source(self, path: str) -> Path:
        if self.hanging == Path(path):
            self.released.wait(PATIENCE)
        return self._source(path)


class Session:
    """A watch with its service, from a start to an end."""

    def __init__(self, settings: Settings) -> None:
        self.service = Service(settings)
        self.reports: list[FrameReport] = []
        try:
            rules = rules_from(settings)
            self.watch = FolderWatch(rules, self.service, settings.state_dir, on_report=self.reports.append)
        except OSError:
            self.service.close()
            raise

    @property
    def converted(self) -> list[str]:
        return sorted(Path(report.source).name for report in self.reports if report.outcome == "converted")


Start = Callable[..., Any]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path.resolve() / "data" / "raw"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def start(raw: Path, tmp_path: Path) -> Start:
    @contextmanager
    def session(**changes: Any) -> Iterator[Session]:
        fields = {
            "read_roots": (raw.parent,),
            "state_dir": tmp_path.resolve() / "state",
            "watch": (raw,),
            "watch_existing": True,
            "watch_interval": INTERVAL,
            "settle_time": 0.05,
            "timeout": 0.5,
            "sidecar_timeout": 0.0,
        }
        running = Session(Settings(**{**fields, **changes}))
        try:
            yield running
        finally:
            running.service.released.set()
            running.watch.close()
            running.service.close()

    return session


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def put(folder: Path, data: Path, *names: str, like: str = "qxrd_f32_64.tif") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copy(data / like, folder / name)


def value_of(path: Path) -> float:
    return float(tifffile.imread(path)[0, 0])


@pytest.mark.parametrize("recursive", [True, False], ids=["sub-folders", "the folder alone"])
def test_frames_are_converted_and_other_files_are_left(start: Start, raw: Path, data: Path, recursive: bool) -> None:
    put(raw, data, "a.tif", "a.dark.tif", ".hidden.tif", "a.tif.metadata", ".a.tif.1f.petif-tmp")
    put(raw / "deep", data, "b.TIFF")
    put(raw / ".snapshot", data, "c.tif")
    names = ["a.tif", "b.TIFF"] if recursive else ["a.tif"]
    with start(watch_recursive=recursive) as session:
        until(lambda: len(session.reports) == len(names) and session.watch.idle)
        assert session.converted == names
        assert sorted(session.service.asked) == names
    if recursive:
        expected = tifffile.imread(data / "qxrd_f32_64.tif").astype(np.int32)
        output = raw.parent / "processed" / "deep" / "b.TIFF"
        np.testing.assert_array_equal(tifffile.imread(output), expected)


def test_outputs_inside_of_the_watched_folder_are_no_frames(start: Start, raw: Path, data: Path) -> None:
    put(raw, data, "a.tif")
    with start(watch=(raw.parent,)) as session:
        until(lambda: len(session.reports) == 1)
        put(raw, data, "b.tif")
        until(lambda: len(session.reports) == 2)
        shutil.copy(raw.parent / "processed" / "a.tif", raw / "copy.tif")
        put(raw, data, "c.tif")
        until(lambda: len(session.reports) == 3)
        assert session.converted == ["a.tif", "b.tif", "c.tif"]
        assert session.service.asked == ["a.tif", "b.tif", "c.tif"]


def new_recipe(**output: Any) -> Recipe:
    return Recipe.preset("xdi", output=output)


@pytest.mark.parametrize("named", ["here", "there"], ids=["as this host calls it", "as its clients call it"])
def test_outputs_in_the_folder_of_the_recipe_are_no_frames(start: Start, raw: Path, data: Path, named: str) -> None:
    out = raw / "out"
    folder = str(out) if named == "here" else r"Y:\out"
    put(out, data, "frame-before.tif")
    with start(path_maps=(("Y:\\", str(raw)),)) as session:
        until(lambda: session.converted == ["frame-before.tif"])
        session.service.set_recipe(new_recipe(folder=folder))
        put(out, data, "no-frame.tif")  # our own are told by their provenance, too; this one by its place alone
        put(raw, data, "a.tif")
        until(lambda: "a.tif" in session.converted and session.watch.idle)
        session.service.set_recipe(new_recipe())
        until(lambda: "out/no-frame.tif" in known_names(session))
        put(out, data, "frame-after.tif")
        until(lambda: "frame-after.tif" in session.converted and session.watch.idle)
        assert session.service.asked == ["frame-before.tif", "a.tif", "frame-after.tif"]
    assert tifffile.imread(out / "a.tif").dtype == np.int32


def test_first_output_of_a_recipe_set_meanwhile_is_no_frame(
    start: Start, raw: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FrameLister.scan
    found: list[str] = []
    with start() as session:

        def look(self: FrameLister, excluded: Collection[Path] = ()) -> Listing:
            result = real(self, excluded)
            if "out/first.tif" in result.came:
                session.service.set_recipe(new_recipe(folder=str(raw / "out")))
            found.extend(result.came)
            return result

        monkeypatch.setattr(FrameLister, "scan", look)
        put(raw / "out", data, "first.tif")
        until(lambda: "out/first.tif" in found)
        put(raw, data, "b.tif")
        until(lambda: session.converted == ["b.tif"] and session.watch.idle)
        assert session.service.asked == ["b.tif"]


def test_in_place_writable_folders_are_watched_from_then_on(start: Start, raw: Path, data: Path) -> None:
    out = raw / "out"
    put(out, data, "foreign.tif")
    with start(write_roots=(out,)) as session:
        until(lambda: session.watch.idle)
        session.service.set_recipe(new_recipe(mode="in_place"))
        until(lambda: "out/foreign.tif" in known_names(session))
        put(out, data, "b.tif")
        until(lambda: session.converted == ["b.tif"] and session.watch.idle)
        assert session.service.asked == ["b.tif"]
    assert (out / "foreign.tif").read_bytes() == (data / "qxrd_f32_64.tif").read_bytes()


def known_names(session: Session) -> list[str]:
    """Return what the watch of the one folder knows."""
    (watcher,) = session.watch._watchers
    return watcher._files.present


def test_the_recipe_that_was_set_holds_after_a_restart(start: Start, raw: Path, data: Path) -> None:
    with start() as session:
        session.service.set_recipe(new_recipe(folder=str(raw / "out")))
    put(raw / "out", data, "no-frame.tif")
    put(raw, data, "a.tif")
    with start() as session:
        until(lambda: session.converted == ["a.tif"] and session.watch.idle)
        assert session.service.asked == ["a.tif"]


def test_after_a_restart_only_what_is_new_is_taken(start: Start, raw: Path, data: Path) -> None:
    put(raw, data, "old.tif")
    with start(watch_existing=False) as session:
        until(lambda: session.watch.idle)
        put(raw, data, "a.tif")
        until(lambda: session.converted == ["a.tif"])
    put(raw, data, "b.tif")
    with start(watch_existing=False) as session:
        until(lambda: session.converted == ["b.tif"] and session.watch.idle)
        assert session.service.asked == ["b.tif"]


def test_new_content_under_the_old_name_is_converted(start: Start, raw: Path, data: Path) -> None:
    put(raw, data, "a.tif", "b.tif")
    with start() as session:
        until(lambda: session.converted == ["a.tif", "b.tif"])
        put(raw, data, "new.part", like="qxrd_r16_64.tif")
        (raw / "new.part").replace(raw / "a.tif")
        until(lambda: session.converted == ["a.tif", "a.tif", "b.tif"])
    reference = tifffile.imread(data / "qxrd_r16_64.tif").astype(np.int32)
    np.testing.assert_array_equal(tifffile.imread(raw.parent / "processed" / "a.tif"), reference)


def test_frame_slower_than_the_timeout_is_converted_when_done(start: Start, raw: Path, data: Path) -> None:
    with start() as session:
        put(raw, data, "a.tif", like="unfinished_half_ifd.tif")
        until(lambda: [report.outcome for report in session.reports] == ["failed"])
        (raw / "a.tif").write_bytes((data / "qxrd_f32_64.tif").read_bytes())
        until(lambda: [report.outcome for report in session.reports] == ["failed", "converted"])


def test_frames_wait_while_there_is_no_room(start: Start, raw: Path, data: Path) -> None:
    with start() as session:
        session.service.full = True
        put(raw, data, "a.tif", "b.tif")
        until(lambda: "2 frames wait to be accepted: the queue is full" in session.watch.problem)
        session.service.full = False
        until(lambda: session.converted == ["a.tif", "b.tif"])
        until(lambda: not session.watch.problem)


def test_refused_frame_is_reported_once(start: Start, raw: Path, data: Path) -> None:
    put(raw, data, "a.tif")
    stray = raw.parent / "stray"
    put(stray, data, "s.tif", "t.tif")
    for rounds in (4, 0):
        with start(watch=(raw.parent,)) as session:
            until(lambda: session.watch.idle)
            put(raw, data, f"more{rounds}.tif")
            until(lambda name=f"more{rounds}.tif": name in session.converted)
            refused = [report for report in session.reports if report.outcome == "failed"]
            assert sorted(Path(report.source).name for report in refused) == (["s.tif", "t.tif"] if rounds else [])
            assert all("no folder named 'raw'" in report.reason for report in refused)


def test_folder_that_goes_and_comes_back_brings_only_new_files(start: Start, raw: Path, data: Path) -> None:
    put(raw, data, "a.tif")
    away = raw.with_name("away")
    with start() as session:
        until(lambda: session.converted == ["a.tif"])
        raw.rename(away)
        until(lambda: f"{raw}: cannot list this folder" in session.watch.problem)
        put(away, data, "b.tif")
        away.rename(raw)
        until(lambda: session.converted == ["a.tif", "b.tif"])
        until(lambda: not session.watch.problem and session.watch.idle)
        assert session.service.asked == ["a.tif", "b.tif"]
        raw.rename(away)
        raw.mkdir()  # a mount point that is empty for a while
        put(raw, data, "c.tif")
        until(lambda: "c.tif" in session.converted)
        shutil.rmtree(raw)
        put(away, data, "d.tif")
        away.rename(raw)
        until(lambda: "d.tif" in session.converted and session.watch.idle)
        assert session.service.asked == ["a.tif", "b.tif", "c.tif", "d.tif"]


def test_folder_outside_of_the_roots_stops_no_other_and_nested_is_one(
    start: Start, raw: Path, data: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path.resolve() / "elsewhere"
    put(elsewhere, data, "b.tif")
    put(raw / "deep", data, "a.tif")
    with start(watch=(elsewhere, raw / "deep", raw, raw)) as session:
        until(lambda: session.converted == ["a.tif"])
        assert "outside the folders that may be read" in session.watch.problem
        put(raw / "deep", data, "c.tif")
        until(lambda: session.converted == ["a.tif", "c.tif"])
        assert session.service.asked == ["a.tif", "c.tif"]


def test_hanging_file_system_stops_no_other_folder(start: Start, raw: Path, data: Path) -> None:
    other = raw / "other"
    put(other, data, "a.tif")
    hanging = raw / "hanging"
    put(hanging, data, "b.tif")
    with start(watch=(hanging, other)) as session:
        session.service.hanging = hanging
        until(lambda: "a.tif" in session.converted)
        began = time.monotonic()
        session.watch.close(timeout=0.2)
        assert time.monotonic() - began < PATIENCE / 2


def test_frames_that_a_ledger_has_lost_are_submitted_again(start: Start, raw: Path, data: Path, tmp_path: Path) -> None:
    put(raw, data, "a.tif", like="unfinished_half_ifd.tif")
    with start(timeout=60) as session:
        until(lambda: session.service.asked == ["a.tif"] and session.service.snapshot.queue_length == 1)
    for ledger in (tmp_path / "state").glob("ledger*"):
        ledger.unlink()
    put(raw, data, "a.tif")
    with start() as session:
        until(lambda: session.converted == ["a.tif"])


def test_damaged_book_is_set_aside_and_has_one_owner(
    start: Start, tmp_path: Path, raw: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(raw, data, "a.tif")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / STORE_NAME).write_bytes(b"no database" * 1000)
    with start() as session:
        until(lambda: session.converted == ["a.tif"])
        assert "was damaged" in session.watch.problem
        monkeypatch.setattr("tango_server.sqlite.sole_owner.LOCK_TIMEOUT", 0.05)
        with pytest.raises(OSError, match="another state directory"):
            FolderWatch(rules_from(Settings(read_roots=[raw], state_dir=tmp_path)), session.service, tmp_path / "state")
    assert len(list((tmp_path / "state").glob(f"{STORE_NAME}.damaged-*"))) == 1


def test_store_that_cannot_be_read_for_a_while_costs_no_frame(start: Start, raw: Path, data: Path) -> None:
    put(raw, data, "a.tif")
    with start() as session:
        until(lambda: session.converted == ["a.tif"])
        store = session.watch._store._file
        reading, failures = store.reading, [0]

        def fail() -> Any:
            failures[0] += 1
            raise sqlite3.OperationalError("disk I/O error")

        store.reading = fail  # type: ignore[method-assign]
        put(raw, data, "b.tif")
        until(lambda: failures[0] > 3)
        assert "disk I/O error" in session.watch.problem
        store.reading = reading  # type: ignore[method-assign]
        until(lambda: session.converted == ["a.tif", "b.tif"] and session.watch.idle)
        assert session.service.asked == ["a.tif", "b.tif"]


@pytest.mark.skipif(os.name == "nt", reason="2,000 links take their time there")
def test_poll_of_many_frames_is_one_listing_and_few_stats(
    start: Start, raw: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(raw, data, "first.tif")
    for number in range(2_000):
        os.link(raw / "first.tif", raw / f"many-{number:05d}.tif")
    listings, stats, listed_at_submit = [0], [0], []
    scandir, stat, submit = os.scandir, os.stat, Service.submit

    def count_listing(path: Any) -> Any:
        listings[0] += str(path) == str(raw)
        return scandir(path)

    def count_stat(path: Any, **options: Any) -> os.stat_result:
        stats[0] += str(path).startswith(str(raw))
        return stat(path, **options)

    def count_at_submit(self: Service, query: SubmitQuery) -> SubmitAnswer:
        listed_at_submit.append(listings[0])
        return submit(self, query)

    monkeypatch.setattr(os, "scandir", count_listing)
    monkeypatch.setattr(os, "stat", count_stat)
    monkeypatch.setattr(Service, "submit", count_at_submit)
    with start(watch_existing=False) as session:
        until(lambda: listings[0] >= 5)
        put(raw, data, "new.part")
        before, stats_before = listings[0], stats[0]
        (raw / "new.part").rename(raw / "new.tif")
        until(lambda: session.converted == ["new.tif"])
        looks = listings[0] - before
        assert listed_at_submit[0] - before <= 2
        assert stats[0] - stats_before <= (looks + 1) * (CHECKS_PER_SCAN + 10)
        assert session.service.asked == ["new.tif"]


@pytest.mark.parametrize("modules", [None, 2])
def test_late_module_of_a_lambda_is_not_lost(start: Start, raw: Path, modules: int | None) -> None:
    write_module(raw / "scan_m1.nxs", frames_of(1))
    with start(lambda_modules=modules) as session:
        until(lambda: len(session.converted) == 3 or any(each.outcome == "failed" for each in session.reports))
        write_module(raw / "scan_m2.nxs", frames_of(2), corner=(12, 0))
        whole = (8, 24)
        until(lambda: sum(each.outcome == "converted" and each.shape == whole for each in session.reports) >= 3)
    assert [tifffile.imread(path).shape for path in (raw.parent / "processed").glob("*.tif")] == [whole] * 3
