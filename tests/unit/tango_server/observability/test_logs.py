"""The log of a server: what its lines hold, where they go, and that nobody ever waits or falls over it."""

import io
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from tango_server.observability import logs
from tango_server.observability.console import RateLimitedHandler
from tango_server.observability.formatters import LineFormatter
from tango_server.observability.log_file import LogFile, note
from tango_server.observability.logs import Logging

PACKAGE = logging.getLogger("tango_server")
LOG = logging.getLogger("tango_server.jobs.runner")
HOSTILE = 'x\n{"time": "2026-01-01T00:00:00.000Z", "level": "ERROR"}\r\x1b[2J\u2028\udcff.tif'

Start = Callable[..., Logging]


class Memory(logging.Handler):
    """A log stream that keeps what it takes, once `before` has returned."""

    def __init__(self, lowest: int = logging.INFO, expected: int = 0, before: Callable[[], object] = bool) -> None:
        super().__init__(lowest)
        self.setFormatter(LineFormatter())
        self.texts: list[tuple[int, str]] = []
        self.complete = threading.Event()
        self._expected = expected
        self._before = before

    def emit(self, record: logging.LogRecord) -> None:
        self._before()
        self.texts.append((record.levelno, self.format(record)))
        if len(self.texts) == self._expected:
            self.complete.set()


class Gate:
    """Holds up whoever comes, as a hanging storage does, until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.opened.wait(30)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "logs"


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    running: list[Logging] = []
    threads = set(threading.enumerate())

    def start_it(level: str = "INFO", max_bytes: int = 1_000_000, files: int = 3, **more: Any) -> Logging:
        directory = more.pop("directory", folder)
        running.append(Logging(directory, level=level, max_bytes=max_bytes, files=files, **more))
        return running[-1]

    yield start_it
    for log in running:
        log.close()
    assert set(threading.enumerate()) <= threads


@pytest.fixture
def program() -> Iterator[io.StringIO]:
    """What a program that embeds the package sees on its own handler, for warnings and more."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    root = logging.getLogger()
    root.addHandler(handler)
    level = root.level
    root.setLevel(logging.WARNING)
    yield text
    root.setLevel(level)
    root.removeHandler(handler)


def lines(directory: Path, name: str = "petif.log") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / name).read_text("ascii").splitlines()]


def messages(directory: Path) -> list[str]:
    return [line["message"] for line in lines(directory)]


def numbered(*numbers: int) -> list[str]:
    return [f"message {number}" for number in range(*numbers)]


def log_many(count: int) -> None:
    for text in numbered(count):
        LOG.info(text)


def fail(reason: str) -> None:
    raise ValueError(reason)


def failure(reason: str) -> logging.LogRecord:
    try:
        fail(reason)
    except ValueError:
        return LOG.makeRecord(LOG.name, logging.WARNING, "runner.py", 7, "failed", (), sys.exc_info())


def test_line_holds_time_level_logger_message_and_job(folder: Path, start: Start) -> None:
    before = datetime.now(UTC)
    job = {"job_id": "4f3c", "run_uid": "run", "conversion_time": 0.017}
    with closing(start()):
        LOG.info("converted %s", "/raw/a.tif", extra=job)
        LOG.info("no job")
    first, second = lines(folder)
    when = first.pop("time")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", when)
    assert abs((datetime.fromisoformat(when) - before).total_seconds()) < 30
    assert first == {"level": "INFO", "logger": LOG.name, "message": "converted /raw/a.tif", **job}
    assert "job_id" not in second


def test_traceback_is_a_field_in_the_file_and_short_in_the_stream(folder: Path, start: Start) -> None:
    stream = Memory()
    with closing(start(stream=stream)), pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.getLogger(), "handlers", [logging.NullHandler()])  # xdist can't send lone surrogates
        for reason in ("no good", HOSTILE):
            try:
                fail(reason)
            except ValueError:
                LOG.exception("went wrong", extra={"job_id": "4f3c"})
    for reason, line in zip(("no good", HOSTILE), lines(folder), strict=True):
        assert (line["message"], line["job_id"]) == ("went wrong", "4f3c")
        assert line["traceback"].startswith("Traceback (most recent call last)")
        assert line["traceback"].endswith(f"ValueError: {reason}")
    assert stream.texts[0] == (logging.ERROR, "went wrong (job 4f3c): ValueError: no good")
    assert len(stream.texts) == 2


def test_file_name_cannot_forge_a_line_anywhere(folder: Path, start: Start) -> None:
    stream, shown = Memory(), io.StringIO()
    with closing(start(stream=stream)):
        LOG.info("converted %s", HOSTILE)
    raw = (folder / "petif.log").read_bytes()
    assert raw.count(b"\n") == 1
    assert raw.isascii()
    assert b"\x1b" not in raw
    assert messages(folder) == [f"converted {HOSTILE}"]

    console = RateLimitedHandler(shown)
    console.handle(LOG.makeRecord(LOG.name, logging.WARNING, "a.py", 1, "%s", (HOSTILE,), None, extra={"job_id": "4f"}))
    console.handle(failure(f"/raw/{HOSTILE}"))
    about_job, about_failure = shown.getvalue().splitlines()
    assert about_job.endswith("(job 4f)")
    assert ": failed: " in about_failure
    ((_, text),) = stream.texts
    for seen in (text, shown.getvalue().replace("\n", "")):
        assert seen.isascii()
        assert seen.isprintable()


def test_file_and_stream_each_take_their_own_level(folder: Path, start: Start) -> None:
    stream = Memory(logging.ERROR, expected=1)
    with closing(start("WARNING", stream=stream)):
        for write in (LOG.debug, LOG.info, LOG.warning, LOG.error):
            write("%s", write.__name__, extra={"job_id": "4f3c"})
        assert stream.complete.wait(30)
        stream.setLevel(logging.DEBUG)  # it may change its mind
        LOG.debug("wanted now")
    assert messages(folder) == ["warning", "error"]
    assert stream.texts == [(logging.ERROR, "error (job 4f3c)"), (logging.DEBUG, "wanted now")]


@pytest.mark.parametrize("names", [["petif.log", "petif.log.1", "petif.log.2"], ["petif.log"]], ids=["three", "one"])
def test_files_stay_small_and_few(names: list[str], folder: Path, start: Start) -> None:
    with closing(start(max_bytes=10_000, files=len(names))):
        log_many(1000)
    assert sorted(path.name for path in folder.iterdir()) == names
    assert all((folder / name).stat().st_size <= 10_000 for name in names)
    kept = [line["message"] for name in reversed(names) for line in lines(folder, name)]
    assert kept == numbered(1000 - len(kept), 1000)
    assert len(kept) > (100 if len(names) > 1 else 0)


def test_restarted_log_appends_and_doubles_nothing(folder: Path, start: Start) -> None:
    folder.mkdir()
    (folder / "petif.log").write_text('{"message": "whole"}\n{"messa')  # as a killed server leaves it
    for number in range(5):
        with closing(start()):
            LOG.info("start %d", number)
        LOG.info("nobody listens")
    whole, half, *others = (folder / "petif.log").read_text().splitlines()
    assert (json.loads(whole)["message"], half) == ("whole", '{"messa')
    assert [json.loads(line)["message"] for line in others] == [f"start {number}" for number in range(5)]


@pytest.mark.skipif(os.name == "nt", reason="no file that is open can be renamed there")
@pytest.mark.parametrize("moved", [True, False], ids=["renamed", "deleted"])
def test_a_log_that_somebody_takes_away_is_begun_anew(tmp_path: Path, moved: bool, program: io.StringIO) -> None:
    path = tmp_path / "petif.log"
    with closing(LogFile(path, level="INFO", max_bytes=10_000, files=2)) as log:
        log.emit(note("first"))
        path.rename(tmp_path / "taken") if moved else path.unlink()
        log.emit(note("second"))
    assert [json.loads(line)["message"] for line in path.read_text().splitlines()] == ["second"]
    assert not program.getvalue()


def test_closed_log_leaves_nothing_behind(start: Start) -> None:
    def left() -> tuple[int, int, int, bool]:
        return len(psutil.Process().open_files()), len(PACKAGE.handlers), PACKAGE.level, PACKAGE.propagate

    before = left()
    for _ in range(3):
        log = start(stream=Memory())
        LOG.warning("something")
        log.close()
        log.close()
    assert left() == before


def test_two_servers_in_one_program_each_keep_their_log(tmp_path: Path, start: Start) -> None:
    first, second = start("DEBUG", directory=tmp_path / "1"), start("WARNING", directory=tmp_path / "2")
    LOG.debug("a")
    LOG.warning("b")
    first.close()
    LOG.info("c")
    LOG.warning("d")
    second.close()
    assert messages(tmp_path / "1") == ["a", "b"]
    assert messages(tmp_path / "2") == ["b", "d"]


@pytest.mark.parametrize(
    ("level", "seen"), [("NOTSET", ["loud", "loudest", "not ours", "after"]), ("ERROR", ["loudest", "not ours"])]
)
def test_embedding_program_sees_what_it_would_see_anyway(
    level: str, seen: list[str], folder: Path, start: Start, program: io.StringIO
) -> None:
    PACKAGE.setLevel(level)
    try:
        with closing(start("DEBUG")):
            LOG.debug("quiet")
            LOG.warning("loud")
            LOG.error("loudest")
            logging.getLogger("somebody_else").warning("not ours")
        LOG.warning("after")
        assert logging.getLevelName(PACKAGE.level) == level
    finally:
        PACKAGE.setLevel(logging.NOTSET)
    assert program.getvalue().splitlines() == seen
    assert messages(folder) == ["quiet", "loud", "loudest"]


def test_program_that_wants_no_messages_gets_none(
    folder: Path, start: Start, program: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PACKAGE, "propagate", False)
    with closing(start()):
        LOG.warning("for the file")
    assert not PACKAGE.propagate
    assert not program.getvalue()
    assert messages(folder) == ["for the file"]


def test_unwritable_folder_is_reported_once(folder: Path, start: Start, program: io.StringIO) -> None:
    folder.write_text("a file is in the way")
    stream = Memory()
    with closing(start(stream=stream)):
        log_many(100)
    (told,) = program.getvalue().splitlines()
    assert str(folder / "petif.log") in told
    assert "cannot write the log" in told
    assert len(stream.texts) == 100


def test_failing_stream_is_reported_once(folder: Path, start: Start, program: io.StringIO) -> None:
    written: list[str] = []

    def refuse() -> None:
        written.append("a line")
        fail("nobody there")

    with closing(start(stream=Memory(before=refuse))):
        log_many(20)
    assert len(written) == 20
    assert messages(folder) == numbered(20)
    assert program.getvalue().count("nobody there") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the full disk that Linux offers")
def test_full_disk_is_reported_once_and_later_the_gap(
    folder: Path, start: Start, program: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    path = folder / "petif.log"
    folder.mkdir()
    path.symlink_to("/dev/full")
    stream = Memory(expected=50)
    with closing(start(stream=stream)):
        log_many(50)
        assert stream.complete.wait(30)  # the file's turn comes before the stream's
        path.unlink()
        LOG.info("room again")
    (told,) = program.getvalue().splitlines()
    assert "No space left on device" in told
    assert messages(folder) == ["room again", "50 messages before this one were lost: the log could not be written"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("later", [[], ["room again"]], ids=["at the end", "in between"])
def test_logging_never_waits_and_counts_losses(
    later: list[str], folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_QUEUED", 10)
    gate = Gate()
    stream = Memory(expected=11, before=gate)
    with closing(start(stream=stream)):
        LOG.info("first")
        assert gate.reached.wait(30)
        log_many(100)
        gate.opened.set()
        assert stream.complete.wait(30)
        for text in later:
            LOG.info(text)
    lost = "90 messages were lost: they came faster than the log could be written"
    assert messages(folder) == ["first", *numbered(10), lost, *later]


def test_hanging_log_does_not_hold_up_the_end(start: Start, program: io.StringIO) -> None:
    gate = Gate()
    stream = Memory(before=gate)
    log = start(stream=stream)
    LOG.info("one")
    LOG.info("two")
    assert gate.reached.wait(30)
    log.close(timeout=0.05)
    assert "writing the log hangs" in program.getvalue()
    assert not PACKAGE.handlers
    gate.opened.set()
    for thread in threading.enumerate():
        if thread.name == "petif-log":
            thread.join(30)
    assert [text for _, text in stream.texts] == ["one"]


def test_file_that_cannot_be_renamed_keeps_growing(tmp_path: Path, program: io.StringIO) -> None:
    file = LogFile(tmp_path / "petif.log", level="INFO", max_bytes=1000, files=2)

    def refuse(source: str, target: str) -> None:
        raise PermissionError(13, "open in another program", source, None, target)

    file.rotator = refuse
    for text in numbered(50):
        file.handle(PACKAGE.makeRecord("tango_server", logging.INFO, "", 0, text, (), None))
    file.close()
    assert messages(tmp_path) == numbered(50)
    assert not program.getvalue()


def test_ten_thousand_failures_a_minute_show_ten_on_stderr() -> None:
    text, now = io.StringIO(), [0.0]
    console = RateLimitedHandler(text, lambda: now[0])
    for number in range(10_000):
        console.handle(failure(f"/raw/{number}{HOSTILE}"))
    console.handle(LOG.makeRecord(LOG.name, logging.ERROR, "runner.py", 8, "something else", (), None))
    *failures, left_out, other = text.getvalue().splitlines()
    assert len(failures) == 10
    assert all(": failed: " in line for line in failures)
    assert [line.split(": ", 1)[1] for line in (left_out, other)] == [
        "Similar messages are suppressed here for 60 s; the log file has them.",
        "something else",
    ]
    now[0] = 60.0
    console.handle(failure("/raw/1"))
    assert text.getvalue().count(": failed") == 11
