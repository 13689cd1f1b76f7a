"""Where the messages of this package go while a server runs.

    logger `tango_server` -+- _Intake -> queue -> thread -+- LogFile      <state_dir>/logs/petif.log
                           |                              +- TangoStream  the device's log stream
                           +- _Onward -> the root logger's handlers: standard error, or those of an embedding program

Messages about a job carry its ids as `extra={"job_id": ..., "run_uid": ...}`; every extra is a field of its line in the
file. Several logs may run in one program, each with an intake of its own.
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
_PATIENCE = 5.0  # s
_PACKAGE = logging.getLogger("tango_server")
_attaching = threading.Lock()
_Handler = TypeVar("_Handler", bound=logging.Handler)


class Logging(QueueListener):
    """Writes the messages of this package to `directory / petif.log` until it is closed.

    The thread that logs only puts the message into a queue; another one writes. A folder that can't be written is a
    warning, once, at the first message, and tried again.

    Parameters
    ----------
    directory: folder of the log; made if it is missing
    level: name of the lowest level that the file takes
    max_bytes: size at which a new file is begun
    files: how many files are kept, the one that is written included
    stream: takes messages, too, by its own level; called in the log's thread alone

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
        """Hand a record to the file and the stream; one that raises is reported once and does not end the thread."""
        try:
            super().handle(record)
        except Exception as error:  # noqa: BLE001 - the boundary of the thread
            if not self._stream_failed:
                about_the_log.warning("messages can't be passed on to the log stream: %r", error)
            self._stream_failed = True

    def close(self, patience: float = _PATIENCE) -> None:
        """Write what was logged until now, and end; a storage that hangs is left alone after `patience` seconds."""
        if not _detach(self._intake):
            return
        self._intake.report_lost()
        stopping = threading.Thread(target=self.stop, name="petif-log", daemon=True)
        stopping.start()
        stopping.join(patience)
        if stopping.is_alive():
            self.handlers = ()  # the next log may write to the same file
            about_the_log.warning(
                "%s: writing the log hangs, its last messages are lost. Look at that storage.", self._path
            )

    def stop(self) -> None:
        """Wait until all records are handled, then close the file and the stream."""
        handlers = self.handlers
        super().stop()
        for handler in handlers:
            handler.close()


class _Intake(QueueHandler):
    """Puts records that a handler wants into a queue, never waiting; those that find it full are lost, and counted."""

    def __init__(self, handlers: Sequence[logging.Handler]) -> None:
        self._records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()  # the mark of its end always has room
        super().__init__(self._records)
        self._handlers = handlers
        self._lost = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a handler wants the record; else it is not worth to be prepared."""
        wanted = any(record.levelno >= each.level and each.filter(record) for each in self._handlers)
        return wanted and bool(super().filter(record))

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Return a copy that depends on nothing which may change until it is written, and keeps no traceback alive."""
        record = copy.copy(record)
        self.format(record)  # puts the text into `message` and `exc_text`
        record.msg, record.args, record.exc_info = record.message, None, None
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        """Put the record into the queue if it has room; called under the handler's lock."""
        if self._records.qsize() >= _QUEUED:
            self._lost += 1
        else:
            self.report_lost()
            self._records.put(record)

    def report_lost(self) -> None:
        """Say in the log how many records before this place are lost, if any are."""
        if self._lost:
            self._records.put(note(f"{self._lost} messages are lost: they came faster than the log could be written"))
        self._lost = 0


class _Onward(logging.Handler):
    """Stands in for the package's propagation: the root logger's handlers get what they would get without our logs."""

    def __init__(self) -> None:
        super().__init__(_PACKAGE.level)
        self.propagates = _PACKAGE.propagate

    def handle(self, record: logging.LogRecord) -> bool:
        """Hand the record on, outside of any lock: those handlers have their own."""
        root = logging.getLogger()
        if self.propagates and (self.level or root.isEnabledFor(record.levelno)):
            root.callHandlers(record)
        return True


def _handlers(kind: type[_Handler]) -> list[_Handler]:
    return [handler for handler in _PACKAGE.handlers if isinstance(handler, kind)]


def _attach(intake: _Intake) -> None:
    """Let the package's logger take all messages."""
    with _attaching:
        if not _handlers(_Onward):
            _PACKAGE.addHandler(_Onward())
            _PACKAGE.propagate = False
            _PACKAGE.setLevel(logging.DEBUG)
        _PACKAGE.addHandler(intake)


def _detach(intake: _Intake) -> bool:
    """Take a log off, and with the last one leave the package's logger as it was; return whether it was there."""
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
