"""Folders become jobs by the real thread, each file once, whatever happens on the way."""

import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from tango_server.jobs import frame_listing
from tango_server.jobs.folder_submission import FolderSubmitter
from tango_server.jobs.intake import Intake
from tango_server.jobs.ledger.database import Database, LedgerBusyError
from tango_server.jobs.ledger.ledger import Ledger
from tango_server.jobs.state_machine.events import Accepted, Refused
from tango_server.jobs.state_machine.events import Event as ServiceEvent
from tango_server.messages import SubmitAnswer, SubmitQuery
from tango_server.recipe import Recipe
from tango_server.settings import Settings

PATIENCE = 20.0


class Server:
    """A submitter with all that it needs. `room`: how many jobs may be accepted before the queue is full."""

    def __init__(self, root: Path, path: Path, *, room: int = 10**6) -> None:
        self.database = Database(path)
        self.ledger = Ledger(self.database)
        self.room = room
        self.told: queue.SimpleQueue[ServiceEvent] = queue.SimpleQueue()
        self.accepted: list[int] = []
        self.failures: list[str] = []
        settings = Settings(read_roots=(root,), state_dir=path.parent, backlog_limit=10**6)
        reception = Intake(
            settings,
            self.ledger,
            recipe=lambda: Recipe.preset("xdi"),
            waiting=lambda: 10**6 - max(self.room - sum(self.accepted), 0),
            post=self.hear,
        )
        self.submitter = FolderSubmitter(self.ledger, reception)

    def hear(self, event: ServiceEvent) -> None:
        if isinstance(event, Accepted):
            self.accepted.append(event.count)
        self.told.put(event)

    def listen(self, accepted: int, failed: int = 0) -> None:
        """Wait until so many more jobs are accepted and files refused; the reasons are kept as `failures`."""
        while accepted > 0 or failed > 0:
            event = self.told.get(timeout=PATIENCE)
            if isinstance(event, Accepted):
                accepted -= event.count
            elif isinstance(event, Refused):
                failed -= 1
                self.failures.append(event.report.reason)
        assert (accepted, failed) == (0, 0)

    def wait_until_done(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.submitter.waiting:
            assert time.monotonic() < deadline
            self.submitter._ending.wait(0.005)

    def limit_pages(self, more: int) -> None:
        """Let the file of the ledger grow by so many pages, as if its disk were full then."""
        connection = self.database._file.writer
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages + more}")

    def sources(self) -> list[str]:
        """Return the names of the sources of all jobs, in the order of the queue."""
        return [job.source.name for job in self.ledger.fetch(0, 10**6).jobs]

    def close(self) -> None:
        self.submitter.close(PATIENCE)
        assert not self.submitter._thread.is_alive()
        self.database.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path.resolve() / "data"
    (root / "raw").mkdir(parents=True)
    return root


@pytest.fixture
def start(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    """Start a server on the one ledger of the test; closed in the end."""
    monkeypatch.setattr("tango_server.jobs.folder_submission._RETRY_INTERVAL", 0.01)
    started: list[Server] = []

    def start(**changes: Any) -> Server:
        started.append(Server(root, tmp_path / "ledger.sqlite", **changes))
        return started[-1]

    yield start
    for server in started:
        server.close()


def fill(folder: Path, files: int) -> list[str]:
    """Put files into a folder and return their names in order."""
    names = [f"frame-{number:05d}.tif" for number in range(files)]
    for name in names:
        (folder / name).touch()
    return names


def test_folder_becomes_jobs_in_portions_in_name_order(start: Callable[..., Server], root: Path) -> None:
    names = fill(root / "raw", 250)
    server = start()
    server.submitter.submit([str(root / "raw")])
    server.listen(accepted=250)
    server.wait_until_done()
    assert server.sources() == names
    assert max(server.accepted) <= 100
    assert server.ledger.submissions() == []
    assert server.submitter.waiting == 0


def test_folder_is_on_the_ledger_before_it_is_listed(start: Callable[..., Server], root: Path) -> None:
    fill(root / "raw", 10)
    server = start(room=0)
    server.submitter.submit([str(root / "raw")])
    assert [paths for _, paths in server.ledger.submissions()] == [[str(root / "raw")]]
    assert (server.submitter.waiting, server.sources()) == (1, [])


def test_no_room_means_later_and_not_never(start: Callable[..., Server], root: Path) -> None:
    names = fill(root / "raw", 450)
    server = start(room=250)
    server.submitter.submit([str(root / "raw")])
    server.listen(accepted=200)
    assert server.submitter.waiting == 1
    server.room = 400
    server.listen(accepted=200)
    server.room = 1000
    server.listen(accepted=50)
    server.wait_until_done()
    assert server.sources() == names


def test_restart_in_the_middle_takes_each_file_once(start: Callable[..., Server], root: Path) -> None:
    names = fill(root / "raw", 450)
    server = start(room=200)
    server.submitter.submit([str(root / "raw")])
    server.listen(accepted=200)
    server.close()
    successor = start()
    successor.listen(accepted=250)
    successor.wait_until_done()
    assert successor.sources() == names


def test_a_full_disk_under_the_ledger_means_later_too(
    start: Callable[..., Server], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = fill(root / "raw", 300)
    refused = Event()
    submit = Intake.submit

    def submit_and_tell(reception: Intake, query: SubmitQuery) -> SubmitAnswer:
        try:
            return submit(reception, query)
        except LedgerBusyError:
            refused.set()
            raise

    monkeypatch.setattr(Intake, "submit", submit_and_tell)
    server = start(room=0)
    server.submitter.submit([str(root / "raw")])
    server.limit_pages(5)
    server.room = 1000
    assert refused.wait(PATIENCE)
    assert len(server.sources()) < 300
    server.limit_pages(100_000)
    server.wait_until_done()
    assert server.sources() == names


def test_what_cannot_be_written_down_is_refused(start: Callable[..., Server], root: Path) -> None:
    server = start()
    server.limit_pages(0)
    with pytest.raises(LedgerBusyError):
        server.submitter.submit([f"{root}/raw/{number}.tif" for number in range(1000)])
    assert server.submitter.waiting == 0


def test_files_and_folders_go_together_and_each_call_makes_jobs(start: Callable[..., Server], root: Path) -> None:
    fill(root / "raw", 2)
    for name in ("a.dark.tif", "notes.txt"):
        (root / "raw" / name).touch()
    server = start()
    paths = [str(root / "raw" / "a.dark.tif"), str(root / "raw"), str(root / "raw" / "coming.tif")]
    for _ in range(2):
        server.submitter.submit(paths)
    server.listen(accepted=8)
    assert server.sources() == 2 * ["a.dark.tif", "frame-00000.tif", "frame-00001.tif", "coming.tif"]


def test_what_comes_after_the_folder_was_listed_is_not_taken(start: Callable[..., Server], root: Path) -> None:
    fill(root / "raw", 3)
    server = start()
    server.submitter.submit([str(root / "raw")], PATIENCE)
    (root / "raw" / "later.tif").touch()
    server.wait_until_done()
    assert len(server.sources()) == 3


def test_refused_files_are_reported_and_others_go_on(start: Callable[..., Server], root: Path, tmp_path: Path) -> None:
    names = fill(root / "raw", 2)
    outside = str(tmp_path / "outside.tif")
    server = start()
    server.submitter.submit([str(root / "raw" / names[0]), outside, str(tmp_path), str(root / "raw" / names[1])])
    server.listen(accepted=2, failed=2)
    assert all("read_roots" in reason for reason in server.failures)
    assert server.sources() == names


def test_unlistable_folder_is_reported_and_others_go_on(
    start: Callable[..., Server], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "locked" / "raw").mkdir(parents=True)
    names = fill(root / "raw", 2)
    really = frame_listing.frames_in

    def refuse(folder: Path, **options: Any) -> Iterator[Path]:
        if "locked" in folder.parts:
            raise PermissionError(13, "Permission denied", str(folder))
        return really(folder, **options)

    monkeypatch.setattr("tango_server.jobs.intake.frames_in", refuse)
    server = start()
    server.submitter.submit([str(root / "locked" / "raw"), str(root / "raw")])
    server.listen(accepted=2, failed=1)
    (reason,) = server.failures
    for words in (str(root / "locked" / "raw"), "cannot list", "Permission denied"):
        assert words in reason
    assert server.sources() == names


def test_an_empty_folder_is_done_at_once(start: Callable[..., Server], root: Path) -> None:
    server = start()
    server.submitter.submit([str(root / "raw")], PATIENCE)
    server.wait_until_done()
    assert (server.sources(), server.ledger.submissions()) == ([], [])


def test_it_ends_promptly_while_it_waits_for_room(
    start: Callable[..., Server], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tango_server.jobs.folder_submission._RETRY_INTERVAL", 60.0)
    fill(root / "raw", 10)
    server = start(room=0)
    server.submitter.submit([str(root / "raw")], PATIENCE)
    began = time.monotonic()
    server.submitter.close(PATIENCE)
    assert time.monotonic() - began < 5.0
