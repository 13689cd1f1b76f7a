"""The log file: JSON lines, rotated by size, and no trouble to anybody when it can't be written."""

import logging
import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler, WatchedFileHandler
from pathlib import Path

from tango_server.observability.formatters import json_formatter

about_the_log = logging.getLogger("petif_log")
"""For trouble with the log itself: not below `tango_server`, whose messages would come back into the log."""


class LogFile(RotatingFileHandler, WatchedFileHandler):
    """Appends records to `path`; opens it, and makes its folder, when the first one comes.

    A full disk, a folder that can't be written: the first failure is a warning, the records are lost, and each further
    one tries again. When that helps, the file says how many are missing. A file that somebody has renamed or removed,
    as logrotate does, is begun anew.
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
            super().emit(note(f"{lost} messages before this one are lost: the log could not be written"))

    def shouldRollover(self, record: logging.LogRecord) -> int:  # noqa: N802 - the name of the standard library
        """Whether the file is full; that is asked of the file which has the name now."""
        if os.name != "nt":  # where no file that is open can be renamed
            self.reopenIfNeeded()
        return super().shouldRollover(record)

    def doRollover(self) -> None:  # noqa: N802 - the name of the standard library
        """Start a new file. One that can't be renamed (open elsewhere on Windows) goes on growing until it can."""
        if self.backupCount == 0:
            os.truncate(self.baseFilename, 0)
        with suppress(OSError):
            super().doRollover()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name of the standard library
        """Count the record as lost, warn of the first of a row, and begin anew with the next."""
        del record
        self._lost += 1
        stream, self.stream = self.stream, None  # its buffer holds half a line, perhaps
        if stream is not None:
            with suppress(OSError):
                stream.close()
        if self._lost == 1:
            error = sys.exception()
            about_the_log.warning(
                "%s: the log can't be written (%s). The server goes on without it, and tries again with every message. "
                "Give the server the right to write there, or make room.",
                self.baseFilename,
                error.strerror if isinstance(error, OSError) and error.strerror else repr(error),
            )

    def _open(self) -> TextIOWrapper:
        """Open the file for appending, at the start of a line even if its last writer was killed in the middle."""
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
    """Return a record of the log about itself."""
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)
