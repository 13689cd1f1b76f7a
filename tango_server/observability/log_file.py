"""The log file: JSON lines, rotated by size; a file that can't be written is no error for the program."""

import logging
import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler, WatchedFileHandler
from pathlib import Path

from tango_server.observability.formatters import json_formatter

about_the_log = logging.getLogger("petif_log")
"""For problems with the log itself: not below `tango_server`, whose messages go into the log."""


class LogFile(RotatingFileHandler, WatchedFileHandler):
    """Appends records to `path`; opens it, and creates its folder, at the first one.

    If it can't be written (full disk, read-only folder), the first failure is a warning, the record is lost, and each
    further record tries again. Once that succeeds, the file says how many were lost. A file that was renamed or
    removed, for example by logrotate, is created again.
    """

    dev = ino = -1  # the open file, for WatchedFileHandler

    def __init__(self, path: Path, *, level: str, max_bytes: int, files: int) -> None:
        super().__init__(path, maxBytes=max_bytes, backupCount=files - 1, encoding="utf-8", delay=True)
        self.setLevel(level)
        self.setFormatter(json_formatter())
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Append one line."""
        lost = self._lost
        super().emit(record)
        if lost and lost == self._lost:
            self._lost = 0
            super().emit(note(f"{lost} messages before this one were lost: the log could not be written"))

    def shouldRollover(self, record: logging.LogRecord) -> int:  # noqa: N802 - the name of the standard library
        """Whether the file is full; reopens it first if it was renamed."""
        if os.name != "nt":  # where an open file can't be renamed
            self.reopenIfNeeded()
        return super().shouldRollover(record)

    def doRollover(self) -> None:  # noqa: N802 - the name of the standard library
        """Start a new file. One that can't be renamed (open elsewhere on Windows) keeps growing until it can."""
        if self.backupCount == 0:
            os.truncate(self.baseFilename, 0)
        with suppress(OSError):
            super().doRollover()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name of the standard library
        """Count the record as lost, warn once, and reopen the file for the next one."""
        del record
        self._lost += 1
        stream, self.stream = self.stream, None  # its buffer may hold half a line
        if stream is not None:
            with suppress(OSError):
                stream.close()
        if self._lost == 1:
            error = sys.exception()
            about_the_log.warning(
                "%s: cannot write the log: %s. The server continues and retries at every message. Check the "
                "permissions and the free space.",
                self.baseFilename,
                error.strerror if isinstance(error, OSError) and error.strerror else repr(error),
            )

    def _open(self) -> TextIOWrapper:
        """Open the file for appending, on a new line even if the last writer was killed halfway."""
        path = Path(self.baseFilename)
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = super()._open()
        if path.is_file() and path.stat().st_size:
            with path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":
                    stream.write("\n")
        return stream


def note(text: str) -> logging.LogRecord:
    """Return a log record about the log itself."""
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)
