"""Where log messages of this package go while a server runs.

    logger `tango_server` -+- _Intake -> queue -> thread -+- LogFile      <state_dir>/logs/petif.log
                           |                              +- TangoStream  the device's log stream
                           +- _Onward -> the root logger's handlers: standard error, or those of an embedding program

Messages about a job carry its ids as `extra={"job_id": ..., "run_uid": ...}`; every extra is a field in the file.
Several logs may run in one program, each with its own intake.
"""

import copy
import logging
import queue
import threading
from collections.abc import Sequence
from logging.handlers import QueueHandler, QueueListener
from pathlib import Path
from typing import TypeVar

from tango_server.observability.log_file import LogFile, about_the_log, note

LOG_NAME = "petif.log"
_QUEUED = 10_000
_CLOSE_TIMEOUT = 5.0  # s
_PACKAGE = logging.getLogger("tango_server")
_attaching = threading.Lock()
_Handler = TypeVar("_Handler", bound=logging.Handler)


class Logging(QueueListener):
    """Writes the messages of this package to `directory / petif.log` until it is closed.

    The thread that logs only puts the message into a queue; another thread writes. A folder that can't be written gives
    one warning, and every message tries again.

    Parameters
    ----------
    directory: folder of the log; created if necessary
    level: minimum level written to the file
    max_bytes: size at which a new file is started
    files: number of files to keep, including the current one
    stream: receives messages, too, at its own level; called only in the log's thread

    """

    def __init__(
        self, directory: Path, *, level: str, max_bytes: int, files: int, stream: logging.Handler | None = None
    ) -> None:
        self._path = directory / LOG_NAME
        self._stream_failed = False
        handlers = [LogFile(self._path, level=level, max_bytes=max_bytes, files=files), *([stream] if stream else [])]
        self._intake = _Intake(handlers)
        super().__init__(self._intake.queue, *handlers, respect_handler_level=True)
        self.start()
        _attach(self._intake)

    def handle(self, record: logging.LogRecord) -> None:
        """Pass a record to the file and the stream; an exception is reported once and does not stop the thread."""
        try:
            super().handle(record)
        except Exception as error:  # noqa: BLE001 - thread boundary
            if not self._stream_failed:
                about_the_log.warning("Cannot write to the log stream: %r", error)
            self._stream_failed = True

    def close(self, timeout: float = _CLOSE_TIMEOUT) -> None:
        """Flush the log and stop; give up after `timeout` seconds if the storage hangs."""
        if not _detach(self._intake):
            return
        self._intake.report_lost()
        stopping = threading.Thread(target=self.stop, name="petif-log", daemon=True)
        stopping.start()
        stopping.join(timeout)
        if stopping.is_alive():
            self.handlers = ()  # the next log may write to the same file
            about_the_log.warning(
                "%s: writing the log hangs, and its last messages are lost. Check the storage.", self._path
            )

    def stop(self) -> None:
        """Wait until all records are handled, then close the file and the stream."""
        handlers = self.handlers
        super().stop()
        for handler in handlers:
            handler.close()


class _Intake(QueueHandler):
    """Queues records for the handlers without ever blocking; if the queue is full they are dropped and counted."""

    def __init__(self, handlers: Sequence[logging.Handler]) -> None:
        self._records: queue.SimpleQueue[logging.LogRecord] = (
            queue.SimpleQueue()
        )  # unbounded: the end marker always fits
        super().__init__(self._records)
        self._handlers = handlers
        self._lost = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether any handler wants the record; otherwise it need not be prepared."""
        wanted = any(record.levelno >= each.level and each.filter(record) for each in self._handlers)
        return wanted and bool(super().filter(record))

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Return a copy that no later change affects, and that keeps no traceback alive."""
        record = copy.copy(record)
        self.format(record)  # sets `message` and `exc_text`
        record.msg, record.args, record.exc_info = record.message, None, None
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        """Queue the record if there is room; called under the handler's lock."""
        if self._records.qsize() >= _QUEUED:
            self._lost += 1
        else:
            self.report_lost()
            self._records.put(record)

    def report_lost(self) -> None:
        """Log how many records were lost here, if any."""
        if self._lost:
            self._records.put(note(f"{self._lost} messages were lost: they came faster than the log could be written"))
        self._lost = 0


class _Onward(logging.Handler):
    """Replaces the package's propagation: the root logger's handlers receive what they would without our logs."""

    def __init__(self) -> None:
        super().__init__(_PACKAGE.level)
        self.propagates = _PACKAGE.propagate

    def handle(self, record: logging.LogRecord) -> bool:
        """Pass the record on, outside any lock: those handlers have their own."""
        root = logging.getLogger()
        if self.propagates and (self.level or root.isEnabledFor(record.levelno)):
            root.callHandlers(record)
        return True


def _handlers(kind: type[_Handler]) -> list[_Handler]:
    return [handler for handler in _PACKAGE.handlers if isinstance(handler, kind)]


def _attach(intake: _Intake) -> None:
    """Attach a log, and set the package's logger to accept all messages."""
    with _attaching:
        if not _handlers(_Onward):
            _PACKAGE.addHandler(_Onward())
            _PACKAGE.propagate = False
            _PACKAGE.setLevel(logging.DEBUG)
        _PACKAGE.addHandler(intake)


def _detach(intake: _Intake) -> bool:
    """Detach a log, and restore the package's logger after the last one; return whether it was attached."""
    with _attaching:
        if intake not in _PACKAGE.handlers:
            return False
        _PACKAGE.removeHandler(intake)
        if not _handlers(_Intake):
            (onward,) = _handlers(_Onward)
            _PACKAGE.removeHandler(onward)
            _PACKAGE.propagate = onward.propagates
            _PACKAGE.setLevel(onward.level)
        return True
