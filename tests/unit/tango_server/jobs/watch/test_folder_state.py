"""What a watch makes of looks, stats and reports: tables, and a machine that writes, replaces, kills and restarts."""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tango_server.jobs.frame_listing import Listing
from tango_server.jobs.watch import folder_state
from tango_server.jobs.watch.folder_state import FORGET_AFTER, WatchedFolder
from tango_server.jobs.watch.known import Identity, Known, Past, Wanted
from tango_server.jobs.watch.sqlite_store import WatchStore
from tango_server.messages import FrameReport, Outcome

NOON = 1.7e9
A, B, C = Identity(100, 1), Identity(200, 2), Identity(300, 3)


def report(outcome: Outcome, size: int = 0, output: str = "/processed/a.tif") -> FrameReport:
    return FrameReport(source="/raw/a.tif", output=output, outcome=outcome, finished=NOON, bytes_in=size)


def watched(*, existing: bool = True, **known: Known) -> WatchedFolder:
    files = {f"{name}.tif": file for name, file in known.items()}
    return WatchedFolder(files, Past(watched_before=bool(known)), take_existing=existing, settle=3.0)


def names(folder: WatchedFolder) -> list[str]:
    return [wanted.name for wanted in folder.wanted()]


def taken(identity: Identity | None = A) -> WatchedFolder:
    """A folder whose one file was just submitted."""
    folder = watched()
    folder.listed(Listing(came=("a.tif",)), NOON)
    folder.intended(Wanted("a.tif", 0), identity)
    folder.submitted(Wanted("a.tif", 0), "job-0")
    return folder


def check(folder: WatchedFolder, identity: Identity | None, times: int = 1) -> list[Wanted]:
    for _ in range(times):
        for name in folder.to_check(10):
            folder.checked(name, identity)
    return folder.wanted()


def test_existing_files_are_taken_only_if_asked_for() -> None:
    look = Listing(came=("a.tif", "b.tif"))
    for existing, expected in ((True, ["a.tif", "b.tif"]), (False, [])):
        folder = watched(existing=existing)
        folder.listed(look, NOON)
        assert names(folder) == expected
        folder.listed(Listing(came=("c.tif",)), NOON)
        assert names(folder) == [*expected, "c.tif"]


def test_files_that_came_between_watches_are_taken() -> None:
    folder = watched(existing=False, a=Known(0, A))
    folder.listed(Listing(came=("b.tif",)), NOON)
    assert names(folder) == ["b.tif"]


def test_files_of_a_sub_folder_unlisted_at_first_are_not_new() -> None:
    folder = watched(existing=False)
    folder.listed(Listing(unlisted={"old": "Permission denied"}), NOON)
    folder.listed(Listing(unlisted={"old": "Permission denied", "new": "Permission denied"}), NOON)
    assert folder.past == Past(watched_before=True, due=frozenset({"old"}))
    folder.listed(Listing(came=("old/a.tif",), unlisted={"old/deep": "it hangs", "new": "Permission denied"}), NOON)
    folder.listed(Listing(came=("old/b.tif", "old/deep/c.tif", "new/d.tif")), NOON)
    assert names(folder) == ["old/b.tif", "new/d.tif"]
    folder.listed(Listing(came=("old/deep/e.tif",)), NOON)
    assert names(folder) == ["old/b.tif", "new/d.tif", "old/deep/e.tif"]


def test_only_later_files_of_an_included_folder_are_new() -> None:
    for existing in (True, False):
        folder = watched(existing=existing)
        folder.listed(Listing(excluded=frozenset({"deep/out"})), NOON)
        folder.listed(Listing(unlisted={"deep": "Permission denied"}), NOON)
        folder.listed(Listing(came=("deep/out/a.tif", "deep/out/more/b.tif", "deep/outer/c.tif")), NOON)
        assert names(folder) == ["deep/outer/c.tif"]
        folder.listed(Listing(came=("deep/out/d.tif",)), NOON)
        assert names(folder) == ["deep/outer/c.tif", "deep/out/d.tif"]


def test_a_file_that_was_written_while_its_job_waited_is_taken_once() -> None:
    folder = taken(A)
    folder.pending("a.tif", B, NOON)
    folder.reported("a.tif", report("converted", C.size), C)
    assert check(folder, C, times=5) == []
    assert folder.idle


def test_file_finished_after_its_job_gave_up_is_taken_again() -> None:
    folder = taken(A)
    folder.reported("a.tif", report("failed"), B)
    assert not folder.idle
    assert check(folder, C) == []
    assert check(folder, C) == [Wanted("a.tif", 1)]


def test_file_finished_just_before_its_job_gave_up_is_taken_again() -> None:
    folder = taken(A)
    folder.pending("a.tif", B, NOON - 2)  # the job waits for 3 s of stillness
    folder.pending("a.tif", B, NOON - 1)
    folder.reported("a.tif", report("failed"), B)
    assert check(folder, B, times=2) == [Wanted("a.tif", 1)]
    folder.intended(Wanted("a.tif", 1), B)
    folder.submitted(Wanted("a.tif", 1), "job-1")
    folder.reported("a.tif", report("failed"), B)
    assert check(folder, B, times=5) == []
    assert folder.idle


def test_a_file_that_its_writer_left_unfinished_fails_once() -> None:
    folder = taken(A)
    folder.pending("a.tif", B, NOON - 60)
    folder.reported("a.tif", report("failed"), B)
    assert check(folder, B, times=5) == []
    assert folder.idle


def test_new_content_under_the_old_name_is_taken_when_it_is_still() -> None:
    folder = taken(A)
    folder.reported("a.tif", report("converted", A.size), A)
    assert check(folder, B) == []
    assert check(folder, C) == []
    assert check(folder, C) == [Wanted("a.tif", 1)]


def test_file_changed_before_its_report_is_taken_again() -> None:
    folder = taken(A)
    folder.reported("a.tif", report("converted", A.size), B)
    assert check(folder, B) == [Wanted("a.tif", 1)]


def test_a_file_converted_in_place_is_not_taken_for_new() -> None:
    folder = taken(A)
    folder.reported("a.tif", report("converted", A.size, output="/raw/a.tif"), B)
    assert check(folder, B, times=3) == []


def test_content_that_replaces_what_was_there_at_first_is_taken() -> None:
    folder = watched(existing=False)
    folder.listed(Listing(came=("a.tif",)), NOON)
    assert check(folder, A) == []
    assert check(folder, B, times=2) == [Wanted("a.tif", 1)]


def test_a_folder_that_is_away_for_a_while_brings_no_new_files() -> None:
    folder = taken(A)
    folder.reported("a.tif", report("converted", A.size), A)
    folder.listed(Listing(gone=("a.tif",)), NOON)
    folder.forget(NOON + FORGET_AFTER - 1)
    folder.listed(Listing(came=("a.tif",)), NOON + FORGET_AFTER)
    assert check(folder, A, times=3) == []


def test_another_file_of_a_name_that_was_gone_is_taken() -> None:
    folder = taken(A)
    folder.reported("a.tif", report("converted", A.size), A)
    folder.listed(Listing(gone=("a.tif",)), NOON)
    folder.listed(Listing(came=("a.tif",)), NOON)
    assert check(folder, B, times=2) == [Wanted("a.tif", 1)]


def test_file_away_when_its_job_gave_up_is_taken_again() -> None:
    folder = taken(A)
    folder.listed(Listing(gone=("a.tif",)), NOON)
    folder.reported("a.tif", report("failed"), None)
    folder.listed(Listing(came=("a.tif",)), NOON)
    assert check(folder, A, times=2) == [Wanted("a.tif", 1)]


def test_a_forgotten_name_never_uses_a_key_again() -> None:
    known = {"a.tif": Known(4, A)}
    folder = WatchedFolder(known, Past(watched_before=True), take_existing=True)
    folder.listed(Listing(gone=("a.tif",)), NOON)
    folder.forget(NOON + FORGET_AFTER)
    assert known == {}
    assert folder.past.floor == 5
    folder.listed(Listing(came=("a.tif",)), NOON + FORGET_AFTER)
    assert folder.wanted() == [Wanted("a.tif", 5)]


def test_names_that_vanish_one_by_one_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_state, "VANISHED_LIMIT", 20)
    known: dict[str, Known] = {}
    folder = WatchedFolder(known, Past(watched_before=True), take_existing=False)
    many = [f"{number}.tif" for number in range(30)]
    for name in many:  # as on a disk from which frames are moved away
        folder.listed(Listing(came=(name,)), NOON)
        folder.left(Wanted(name, 0), A)
        folder.listed(Listing(gone=(name,)), NOON)
    folder.forget(NOON)
    assert set(known) == set(many[10:])


def test_a_folder_that_seems_empty_for_a_while_brings_no_old_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_state, "VANISHED_LIMIT", 20)
    many = tuple(f"{number}.tif" for number in range(100))
    known: dict[str, Known] = {}
    folder = WatchedFolder(known, Past(watched_before=True), take_existing=False)
    folder.listed(Listing(came=many), NOON)
    for name in many:
        folder.left(Wanted(name, 0), A)
    folder.listed(Listing(gone=many), NOON + 1)
    folder.forget(NOON + 1)
    again = WatchedFolder(dict(known), Past(watched_before=True), take_existing=False)
    for one in (folder, again):  # the server may be started anew meanwhile
        one.forget(NOON + 2)
        one.listed(Listing(came=many), NOON + 3)
        assert one.wanted() == []


def test_a_job_that_the_ledger_has_lost_is_submitted_again() -> None:
    folder = taken(A)
    folder.lost("a.tif")
    (wanted,) = folder.wanted()
    assert wanted.name == "a.tif"
    assert wanted.generation > 0


def test_all_files_are_checked_in_turn_in_bounded_shares() -> None:
    files = {f"{number}.tif": Known(0, A) for number in range(1000)}
    folder = WatchedFolder(files, Past(watched_before=True), take_existing=True)
    checked: Counter[str] = Counter()
    for _ in range(40):
        share = folder.to_check(50)
        assert len(share) <= 50
        checked.update(share)
    assert set(checked) == set(files)
    assert max(checked.values()) <= 2


def test_a_quiet_folder_has_nothing_to_write_down(tmp_path: Path) -> None:
    with closing(WatchStore(tmp_path / "watched.sqlite")) as store:
        known = store.open_folder(Path("/raw"))
        folder = WatchedFolder(known, known.past, take_existing=True)
        folder.listed(Listing(came=("a.tif",)), NOON)
        folder.intended(Wanted("a.tif", 0), A)
        folder.submitted(Wanted("a.tif", 0), "job-0")
        folder.reported("a.tif", report("converted", A.size), A)
        known.write(folder.past)
        before = store._file.writer.total_changes
        folder.listed(Listing(), NOON)
        check(folder, A, times=3)
        folder.forget(NOON)
        known.write(folder.past)
        assert store._file.writer.total_changes == before


@dataclass
class Job:
    name: str
    report: FrameReport | None = None


@dataclass
class Disk:
    """The watched folder and the ledger: what, with the store, outlives the watch."""

    files: dict[str, Identity] = field(default_factory=dict)
    jobs: dict[tuple[str, int], Job] = field(default_factory=dict)


NAMES = st.sampled_from(["a.tif", "b.tif", "c.tif"])


class Watching(RuleBasedStateMachine):
    """A watch that is interrupted at any point by writers, by the end of jobs, and by `kill -9`.

    Contents have sizes of their own; even ones are finished frames, odd ones are not.
    """

    @initialize()
    def begin(self) -> None:
        self.disk = Disk()
        self.state = TemporaryDirectory()
        self.store = WatchStore(Path(self.state.name, "watched.sqlite"))
        self.contents = 0
        self.converted: Counter[Identity] = Counter()
        self.start()

    def start(self) -> None:
        self.known = self.store.open_folder(Path("/raw"))
        self.folder = WatchedFolder(self.known, self.known.past, take_existing=True)
        self.listed = set(self.folder.present)
        self.steps = self.watch()

    def watch(self) -> Iterator[None]:
        """Go on as the watcher does, with a pause wherever the world can change."""
        while True:
            now = set(self.disk.files)
            look = Listing(came=tuple(sorted(now - self.listed)), gone=tuple(sorted(self.listed - now)))
            self.listed = now
            self.folder.listed(look, NOON)
            self.write()
            yield
            asked = self.folder.under_way(10)
            before = {name: self.disk.files.get(name) for name in asked}
            yield
            jobs = {str(id(job)): job.report for job in self.disk.jobs.values()}
            reports = {name: jobs[job_id] for name, job_id in asked.items()}
            yield
            for name, found in reports.items():
                if found is None:
                    self.folder.pending(name, before[name], NOON)
                else:
                    self.folder.reported(name, found, self.disk.files.get(name))
            yield
            for name in self.folder.to_check(10):
                self.folder.checked(name, self.disk.files.get(name))
            yield
            for wanted in self.folder.wanted():
                identity = self.disk.files.get(wanted.name)
                if identity is None:
                    continue
                self.folder.intended(wanted, identity)
                self.write()
                yield
                job = self.disk.jobs.setdefault((wanted.name, wanted.generation), Job(wanted.name))
                yield
                self.folder.submitted(wanted, str(id(job)))
            self.write()
            yield

    def write(self) -> None:
        self.known.write(self.folder.past)

    @rule(name=NAMES, finished=st.booleans())
    def put(self, name: str, finished: bool) -> None:
        self.contents += 1
        self.disk.files[name] = Identity(2 * self.contents + (not finished), self.contents)

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        self.disk.files.pop(name, None)

    @rule(count=st.integers(1, 6))
    def go_on(self, count: int) -> None:
        for _ in range(count):
            next(self.steps)

    @rule(gives_up=st.booleans())
    def jobs_end(self, gives_up: bool) -> None:
        for job in self.disk.jobs.values():
            content = self.disk.files.get(job.name)
            if job.report is not None:
                continue
            if content is not None and content.size % 2 == 0:
                self.converted[content] += 1
                job.report = report("converted", content.size)
            elif gives_up:
                job.report = report("failed")

    @rule()
    def kill(self) -> None:
        self.start()

    def teardown(self) -> None:
        with self.state, closing(self.store):
            self.check_in_the_end()

    def check_in_the_end(self) -> None:
        for _ in range(8):
            self.go_on(15)
            self.jobs_end(gives_up=True)
        self.go_on(20)
        assert self.folder.idle
        for name, content in self.disk.files.items():
            expected = 1 if content.size % 2 == 0 else 0
            assert self.converted[content] == expected, (name, content)


TestWatching = Watching.TestCase
TestWatching.settings = settings(max_examples=60, stateful_step_count=40)
