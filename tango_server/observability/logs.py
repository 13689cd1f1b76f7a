"""Where the messages of this package go: a rotating file, the Tango log stream, and whoever else listens.

Messages about a job carry its ids as `extra={"job_id": ..., "run_uid": ...}`; every extra is a field of its line in the
file. Only the loggers of this package are taken, and what the handlers of the embedding program get does not change.
"""

import copy
import logging
import queue
import threading
import time
from logging.handlers import QueueHandler
from pathlib import Path
from typing import Protocol, Self

from tango_server.observability.formatters import for_people, one_line
from tango_server.observability.log_file import LogFile, note

LOG_NAME = "petif.log"
_QUEUED = 10_000
_PATIENCE = 5.0
_PACKAGE = logging.getLogger("tango_server")
_TRACES = logging.Formatter()
_tuning = threading.Lock()


class LogStream(Protocol):
    """Another taker of messages, as text; it decides by level, at any time, what it takes."""

    def takes(self, level: int) -> bool:
        """Whether messages of this level are wanted; asked in the thread that logs, so it must be quick."""

    def write(self, level: int, text: str) -> None:
        """Take one line of ASCII."""


def start_logging(
    directory: Path, *, level: str, max_bytes: int, files: int, stream: LogStream | None = None
) -> "Logging":
    """Write the messages of this package to `directory / petif.log` from now on, until `Logging.close`.

    Never raises: a folder that can't be written is told once, to the other handlers (standard error), and tried again.

    Parameters
    ----------
    directory: folder of the log; made if it is missing
    level: name of the lowest level that the file takes
    max_bytes: size at which a new file is begun
    files: how many files are kept, the one that is written included
    stream: takes messages, too, by its own level

    """
    return Logging(LogFile(directory / LOG_NAME, max_bytes=max_bytes, files=files, on_failure=_say), level, stream)


class Logging:
    """A running log. The thread that logs only puts the message into a queue; another one writes."""

    def __init__(self, file: LogFile, level: str, stream: LogStream | None) -> None:
        self._file = file
        self._level = logging.getLevelNamesMapping()[level]
        self._stream = stream
        self._stream_failed = False
        self._abandoned = False
        self._queue: queue.Queue[logging.LogRecord | None] = queue.Queue(_QUEUED)
        self._intake = _Intake(self._queue, self._level, stream)
        self._thread = threading.Thread(target=self._run, name="petif-log", daemon=True)
        self._thread.start()
        _attach(self._intake)

    def close(self, patience: float = _PATIENCE) -> None:
        """Write what was logged until now, and end; a storage that hangs is left alone after `patience` seconds."""
        _detach(self._intake)
        deadline = time.monotonic() + patience
        try:
            self._queue.put(None, timeout=patience)
            self._thread.join(max(deadline - time.monotonic(), 0.0))
        except queue.Full:
            pass
        if self._thread.is_alive():
            self._abandoned = True
            _say(f"{self._file.baseFilename}: writing the log hangs, its last messages are lost. Look at that storage.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        self._file.try_to_open()
        while (record := self._queue.get()) is not None and not self._abandoned:
            self._deliver(record)
            if self._queue.empty():
                self._tell_lost()
        self._tell_lost()
        self._file.close()

    def _tell_lost(self) -> None:
        lost = self._intake.take_lost()
        if lost and not self._abandoned:
            self._deliver(note(f"{lost} messages are lost: they came faster than the log could be written"))

    def _deliver(self, record: logging.LogRecord) -> None:
        if record.levelno >= self._level:
            self._file.handle(record)
        if self._stream is None:
            return
        try:
            if self._stream.takes(record.levelno):
                self._stream.write(record.levelno, _brief(record))
        except Exception as error:  # noqa: BLE001 - the boundary of the thread; told once, not for every message
            if not self._stream_failed:
                self._stream_failed = True
                _say(f"messages can't be passed on to the log stream: {error!r}")


def _brief(record: logging.LogRecord) -> str:
    """Return the message and the last line of the traceback."""
    if not record.exc_text:
        return for_people(record)
    last = record.exc_text.rstrip().rpartition("\n")[2]
    return f"{for_people(record)}: {one_line(last)}"


class _Intake(QueueHandler):
    """Puts records into a bounded queue, never waiting; counts those that find it full."""

    def __init__(self, records: "queue.Queue[logging.LogRecord | None]", level: int, stream: LogStream | None) -> None:
        super().__init__(records)
        self.setLevel(level if stream is None else logging.DEBUG)
        self._file_level = level
        self._stream = stream
        self._lost = 0
        self._counting = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether anybody wants the record."""
        wanted = record.levelno >= self._file_level or (self._stream is not None and self._stream.takes(record.levelno))
        return wanted and bool(super().filter(record))

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Return a copy that depends on nothing which may change until it is written."""
        record = copy.copy(record)
        record.msg, record.args = record.getMessage(), None
        if record.exc_info:
            record.exc_text = _TRACES.formatException(record.exc_info)
            record.exc_info = None
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        """Put the record into the queue, or count it as lost."""
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            with self._counting:
                self._lost += 1

    def take_lost(self) -> int:
        """Return how many records were lost since this was asked last."""
        with self._counting:
            lost, self._lost = self._lost, 0
        return lost


class _Onward(logging.Handler):
    """Hands records on to the handlers of the embedding program: those that they would get without us."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self.own_level = level

    def handle(self, record: logging.LogRecord) -> bool:
        """Hand the record on, outside of any lock: those handlers have their own."""
        parent = _PACKAGE.parent
        if parent is not None and record.levelno >= (self.own_level or parent.getEffectiveLevel()):
            parent.callHandlers(record)
        return True


def _attach(intake: _Intake) -> None:
    with _tuning:
        _PACKAGE.addHandler(intake)
        _tune()


def _detach(intake: _Intake) -> None:
    with _tuning:
        _PACKAGE.removeHandler(intake)
        _tune()
    intake.close()


def _tune() -> None:
    """Let the package's logger take what its logs want, and leave it as it was when there are none any more."""
    intakes = [handler for handler in _PACKAGE.handlers if isinstance(handler, _Intake)]
    onward = next((handler for handler in _PACKAGE.handlers if isinstance(handler, _Onward)), None)
    if intakes:
        if onward is None and _PACKAGE.propagate:
            _PACKAGE.addHandler(_Onward(_PACKAGE.level))
            _PACKAGE.propagate = False
        _PACKAGE.setLevel(min(intake.level for intake in intakes))
    elif onward is not None:
        _PACKAGE.removeHandler(onward)
        _PACKAGE.propagate = True
        _PACKAGE.setLevel(onward.own_level)


def _say(text: str) -> None:
    """Tell the handlers of the embedding program alone, or standard error if there are none."""
    parent = _PACKAGE.parent
    if parent is not None and parent.isEnabledFor(logging.WARNING):
        parent.callHandlers(note(text))
