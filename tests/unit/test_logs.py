"""The log of a server: what its lines hold, where they go, and that nobody ever waits or falls over it."""

import io
import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tango_server import logs
from tango_server.log_console import CalmHandler
from tango_server.log_file import LogFile
from tango_server.logs import Logging, start_logging

PACKAGE = logging.getLogger("tango_server")
LOG = logging.getLogger("tango_server.jobs.runner")
HOSTILE = 'x\n{"time": "2026-01-01T00:00:00.000Z", "level": "ERROR"}\r\x1b[2J\u2028\udcff.tif'

Start = Callable[..., Logging]


class Memory:
    """A log stream that keeps what it takes."""

    def __init__(self, lowest: int = logging.INFO) -> None:
        self.lowest = lowest
        self.texts: list[tuple[int, str]] = []

    def takes(self, level: int) -> bool:
        return level >= self.lowest

    def write(self, level: int, text: str) -> None:
        self.texts.append((level, text))


class Broken(Memory):
    def write(self, level: int, text: str) -> None:
        super().write(level, text)
        raise RuntimeError("nobody there")


class Gate(Memory):
    """A log stream that is as slow as a hanging storage, until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.opened = threading.Event()

    def write(self, level: int, text: str) -> None:
        self.reached.set()
        assert self.opened.wait(30)
        super().write(level, text)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[Logging] = []

    def start_it(level: str = "INFO", max_bytes: int = 1_000_000, files: int = 3, **more: Any) -> Logging:
        directory = more.pop("directory", tmp_path / "logs")
        running.append(start_logging(directory, level=level, max_bytes=max_bytes, files=files, **more))
        return running[-1]

    yield start_it
    for log in running:
        log.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "petif-log"]


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


def test_a_line_tells_when_who_what_and_of_which_job(tmp_path: Path, start: Start) -> None:
    before = datetime.now(UTC)
    log = start()
    LOG.info("converted %s", "/raw/a.tif", extra={"job_id": "4f3c", "run_uid": "run", "conversion_time": 0.017})
    LOG.info("no job")
    log.close()
    first, second = lines(tmp_path / "logs")
    when = first.pop("time")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", when)
    assert abs((datetime.fromisoformat(when) - before).total_seconds()) < 30
    assert first == {
        "level": "INFO",
        "logger": "tango_server.jobs.runner",
        "message": "converted /raw/a.tif",
        "job_id": "4f3c",
        "run_uid": "run",
        "conversion_time": 0.017,
    }
    assert "job_id" not in second


def test_a_traceback_is_a_field_of_its_line(tmp_path: Path, start: Start) -> None:
    log = start()
    try:
        fail(HOSTILE)
    except ValueError:
        LOG.exception("went wrong", extra={"job_id": "4f3c"})
    log.close()
    (line,) = lines(tmp_path / "logs")
    assert (line["message"], line["job_id"]) == ("went wrong", "4f3c")
    assert line["traceback"].startswith("Traceback (most recent call last)")
    assert line["traceback"].endswith(f"ValueError: {HOSTILE}")


def test_a_file_name_can_not_forge_a_line(tmp_path: Path, start: Start) -> None:
    stream = Memory()
    log = start(stream=stream)
    LOG.info("converted %s", HOSTILE)
    log.close()
    raw = (tmp_path / "logs" / "petif.log").read_bytes()
    assert raw.count(b"\n") == 1
    assert raw.isascii()
    assert b"\x1b" not in raw
    assert messages(tmp_path / "logs") == [f"converted {HOSTILE}"]
    ((_, text),) = stream.texts
    assert text.isascii()
    assert text.isprintable()


def test_the_level_holds_for_the_file_and_another_one_for_the_stream(tmp_path: Path, start: Start) -> None:
    stream = Memory(logging.ERROR)
    log = start("WARNING", stream=stream)
    for write in (LOG.debug, LOG.info, LOG.warning, LOG.error):
        write("%s", write.__name__, extra={"job_id": "4f3c"})
    log.close()
    assert messages(tmp_path / "logs") == ["warning", "error"]
    assert stream.texts == [(logging.ERROR, "error (job 4f3c)")]


def test_the_stream_gets_what_it_asks_for_while_it_runs(tmp_path: Path, start: Start) -> None:
    stream = Memory(logging.CRITICAL)
    log = start("ERROR", stream=stream)
    LOG.debug("not wanted by anybody")
    stream.lowest = logging.DEBUG
    LOG.debug("wanted now")
    log.close()
    assert stream.texts == [(logging.DEBUG, "wanted now")]
    assert messages(tmp_path / "logs") == []


def test_the_stream_gets_one_line_for_a_traceback(start: Start) -> None:
    stream = Memory()
    log = start(stream=stream)
    try:
        fail("no good")
    except ValueError:
        LOG.exception("went wrong")
    log.close()
    assert stream.texts == [(logging.ERROR, "went wrong: ValueError: no good")]


def test_files_are_rotated_and_only_so_many_kept(tmp_path: Path, start: Start) -> None:
    log = start(max_bytes=10_000, files=3)
    for number in range(1000):
        LOG.info("message %d", number)
    log.close()
    files = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert files == ["petif.log", "petif.log.1", "petif.log.2"]
    assert all((tmp_path / "logs" / name).stat().st_size <= 10_000 for name in files)
    kept = [line["message"] for name in reversed(files) for line in lines(tmp_path / "logs", name)]
    assert kept == [f"message {number}" for number in range(1000 - len(kept), 1000)]
    assert len(kept) > 100


def test_a_single_file_stays_small_too(tmp_path: Path, start: Start) -> None:
    log = start(max_bytes=10_000, files=1)
    for number in range(1000):
        LOG.info("message %d", number)
    log.close()
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["petif.log"]
    assert (tmp_path / "logs" / "petif.log").stat().st_size <= 10_000
    assert messages(tmp_path / "logs")[-1] == "message 999"


def test_a_log_that_is_started_again_appends_and_doubles_nothing(tmp_path: Path, start: Start) -> None:
    for number in range(5):
        log = start()
        LOG.info("start %d", number)
        log.close()
        LOG.info("nobody listens")
    assert messages(tmp_path / "logs") == [f"start {number}" for number in range(5)]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at open files the Linux way")
def test_a_closed_log_leaves_nothing_behind(start: Start) -> None:
    def left() -> tuple[int, int, int, bool]:
        return len(list(Path("/proc/self/fd").iterdir())), len(PACKAGE.handlers), PACKAGE.level, PACKAGE.propagate

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


def test_the_program_around_sees_what_it_would_see_without_the_log(
    tmp_path: Path, start: Start, program: io.StringIO
) -> None:
    other = logging.getLogger("somebody_else")
    log = start("DEBUG")
    LOG.debug("quiet")
    LOG.warning("loud")
    other.warning("not ours")
    log.close()
    LOG.warning("after")
    assert program.getvalue().splitlines() == ["loud", "not ours", "after"]
    assert messages(tmp_path / "logs") == ["quiet", "loud"]


def test_a_level_that_the_program_has_set_still_holds_for_it(start: Start, program: io.StringIO) -> None:
    PACKAGE.setLevel(logging.ERROR)
    try:
        log = start("DEBUG")
        LOG.warning("for the file")
        LOG.error("for both")
        log.close()
        assert PACKAGE.level == logging.ERROR
    finally:
        PACKAGE.setLevel(logging.NOTSET)
    assert program.getvalue() == "for both\n"


def test_a_folder_that_can_not_be_made_is_told_once_and_nothing_is_raised(
    tmp_path: Path, start: Start, program: io.StringIO
) -> None:
    (tmp_path / "logs").write_text("a file is in the way")
    stream = Memory()
    log = start(stream=stream)
    for number in range(100):
        LOG.info("message %d", number)
    log.close()
    (told,) = program.getvalue().splitlines()
    assert str(tmp_path / "logs" / "petif.log") in told
    assert "can't be written" in told
    assert len(stream.texts) == 100


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the full disk that Linux offers")
def test_a_full_disk_is_told_once_and_when_there_is_room_the_gap_is_told_too(
    tmp_path: Path, start: Start, program: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "logs" / "petif.log"
    path.parent.mkdir()
    path.symlink_to("/dev/full")
    stream = Memory()
    log = start(stream=stream)
    for number in range(50):
        LOG.info("message %d", number)
    wait_for(lambda: len(stream.texts) == 50)  # the file's turn comes before the stream's
    path.unlink()
    LOG.info("room again")
    log.close()
    (told,) = program.getvalue().splitlines()
    assert "No space left on device" in told
    assert messages(path.parent) == ["room again", "50 messages before this one are lost: the log could not be written"]
    assert capfd.readouterr() == ("", "")


def test_half_a_line_of_a_killed_server_spoils_no_other(tmp_path: Path, start: Start) -> None:
    path = tmp_path / "logs" / "petif.log"
    path.parent.mkdir()
    path.write_text('{"message": "whole"}\n{"messa')
    log = start()
    LOG.info("next")
    log.close()
    whole, half, following = path.read_text().splitlines()
    assert (json.loads(whole)["message"], half, json.loads(following)["message"]) == ("whole", '{"messa', "next")


def test_who_logs_never_waits_and_what_is_lost_is_counted(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_QUEUED", 10)
    gate = Gate()
    log = start(stream=gate)
    LOG.info("first")
    assert gate.reached.wait(30)
    for number in range(100):
        LOG.info("message %d", number)
    gate.opened.set()
    log.close()
    assert messages(tmp_path / "logs") == [
        "first",
        *(f"message {number}" for number in range(10)),
        "90 messages are lost: they came faster than the log could be written",
    ]


def test_a_log_that_hangs_does_not_hold_up_the_end(start: Start, program: io.StringIO) -> None:
    gate = Gate()
    log = start(stream=gate)
    LOG.info("one")
    LOG.info("two")
    assert gate.reached.wait(30)
    log.close(patience=0.05)
    assert "writing the log hangs" in program.getvalue()
    assert not PACKAGE.handlers
    gate.opened.set()
    wait_for(lambda: "petif-log" not in {thread.name for thread in threading.enumerate()})
    assert [text for _, text in gate.texts] == ["one"]


def test_a_stream_that_fails_is_told_once_and_the_file_goes_on(
    tmp_path: Path, start: Start, program: io.StringIO
) -> None:
    stream = Broken()
    log = start(stream=stream)
    for number in range(20):
        LOG.info("message %d", number)
    log.close()
    assert len(stream.texts) == len(messages(tmp_path / "logs")) == 20
    assert program.getvalue().count("nobody there") == 1


def test_a_file_that_can_not_be_renamed_goes_on_growing(tmp_path: Path) -> None:
    told: list[str] = []
    file = LogFile(tmp_path / "petif.log", max_bytes=1000, files=2, tell=told.append)

    def refuse(source: str, target: str) -> None:
        raise PermissionError(13, "open in another program", source, None, target)

    file.rotator = refuse
    for number in range(50):
        file.handle(PACKAGE.makeRecord("tango_server", logging.INFO, "", 0, "message %d", (number,), None))
    file.close()
    assert messages(tmp_path) == [f"message {number}" for number in range(50)]
    assert not told


def fail(reason: str) -> None:
    raise ValueError(reason)


def failure(number: int) -> logging.LogRecord:
    try:
        fail(f"/raw/{number}{HOSTILE}")
    except ValueError:
        return LOG.makeRecord(LOG.name, logging.WARNING, "runner.py", 7, "failed", (), sys.exc_info())


def test_ten_thousand_failures_in_a_minute_are_ten_on_standard_error() -> None:
    text, now = io.StringIO(), [0.0]
    console = CalmHandler(text, lambda: now[0])
    for number in range(10_000):
        console.handle(failure(number))
    console.handle(LOG.makeRecord(LOG.name, logging.ERROR, "runner.py", 8, "something else", (), None))
    heads = [line for line in text.getvalue().splitlines() if not line.startswith("  ")]
    assert [head.split(": ", 1)[1] for head in heads] == [
        *(["failed"] * 10),
        "more messages like the last one are left out here for 60 s; the log file has them",
        "something else",
    ]
    now[0] = 60.0
    console.handle(failure(1))
    assert text.getvalue().count(": failed") == 11


def test_a_file_name_can_not_forge_a_line_on_standard_error() -> None:
    text = io.StringIO()
    console = CalmHandler(text)
    console.handle(LOG.makeRecord(LOG.name, logging.WARNING, "a.py", 1, "%s", (HOSTILE,), None, extra={"job_id": "4f"}))
    console.handle(failure(0))
    heads = [line for line in text.getvalue().splitlines() if not line.startswith("  ")]
    assert len(heads) == 2
    assert heads[0].endswith("(job 4f)")
    assert text.getvalue().replace("\n", "").isprintable()
    assert text.getvalue().isascii()


def wait_for(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(3000):
        if condition():
            return
        pause.wait(0.01)
    raise TimeoutError("it did not come true within 30 s")
