"""The log file: JSON lines, rotated by size, and no trouble to anybody when it can't be written."""

import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from tango_server.observability.formatters import json_formatter


class LogFile(RotatingFileHandler):
    """Appends records to `path`; opens it, and makes its folder, when the first one comes.

    A full disk, a folder that can't be written: `on_failure` is called once with a sentence for people, the records
    are lost, and each further one tries again. When that helps, the file says how many are missing.
    """

    def __init__(self, path: Path, *, max_bytes: int, files: int, on_failure: Callable[[str], None]) -> None:
        super().__init__(path, maxBytes=max_bytes, backupCount=files - 1, encoding="utf-8", delay=True)
        self.setFormatter(json_formatter())
        self._path = path
        self._on_failure = on_failure
        self._lost = 0

    def try_to_open(self) -> None:
        """Open the file before the first record comes, so that trouble is told at once."""
        try:
            self.stream = self._open()
        except OSError:
            self.handleError(note("the log is opened"))

    def emit(self, record: logging.LogRecord) -> None:
        """Append one line; to a new file if somebody has renamed or removed the old one, as logrotate does."""
        self._leave_if_moved()
        lost = self._lost
        super().emit(record)
        if lost and lost == self._lost:
            self._lost = 0
            super().emit(note(f"{lost} messages before this one are lost: the log could not be written"))

    def _leave_if_moved(self) -> None:
        if self.stream is None or os.name == "nt":  # where no file that is open can be renamed
            return
        with suppress(OSError, ValueError):  # ValueError: it is closed
            written = os.fstat(self.stream.fileno())
            with suppress(FileNotFoundError):
                if os.path.samestat(written, self._path.stat()):
                    return
            self.stream.close()
            self.stream = None

    def doRollover(self) -> None:  # noqa: N802 - the name of the standard library
        """Start a new file. One that can't be renamed (open elsewhere on Windows) goes on growing until it can."""
        if self.backupCount == 0:
            os.truncate(self.baseFilename, 0)
        with suppress(OSError):
            super().doRollover()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name of the standard library
        """Count the record as lost, on_failure the first of a row, and begin anew with the next."""
        del record
        self._lost += 1
        stream, self.stream = self.stream, None  # its buffer holds half a line, perhaps
        if stream is not None:
            with suppress(OSError):
                stream.close()
        if self._lost == 1:
            error = sys.exception()
            found = error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
            self._on_failure(
                f"{self._path}: the log can't be written ({found}). The server goes on without it, and tries again "
                "with every message. Give the server the right to write there, or make room."
            )

    def _open(self) -> TextIOWrapper:
        """Open the file for appending, at the start of a line even if its last writer was killed in the middle."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        stream = super()._open()
        if self._path.is_file() and _is_torn(self._path):
            stream.write("\n")
        return stream


def note(text: str) -> logging.LogRecord:
    """Return a record of the log about itself."""
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)


def _is_torn(path: Path) -> bool:
    """Whether the file ends in the middle of a line."""
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
