"""Standard error of a server: warnings for people, and no flood of them."""

import logging
import time
from collections.abc import Callable
from typing import TextIO

from tango_server.observability.formatters import LineFormatter

_BURST = 10
_WINDOW = 60.0  # s


def log_to_stderr(*, verbose: bool) -> None:
    """Write warnings to standard error, with `verbose` more; a program that has set up its logging is left alone."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[RateLimitedHandler()])


class RateLimitedHandler(logging.StreamHandler[TextIO]):
    """Writes at most ten messages a minute from one place in the program, and says when it leaves the others out."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self.setFormatter(LineFormatter("{asctime} {levelname} {name}: {message}", style="{"))
        self._clock = clock
        self._windows: dict[tuple[str, int], tuple[float, int]] = {}
        """For each place when its minute began, and its messages since then."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the message, unless there were too many like it."""
        now, place = self._clock(), (record.pathname, record.lineno)
        begun, written = self._windows.get(place, (now, 0))
        if now - begun >= _WINDOW:
            begun, written = now, 0
        self._windows[place] = begun, written + 1
        if written < _BURST:
            super().emit(record)
        elif written == _BURST:
            text = f"more messages like the last one are left out here for {_WINDOW:g} s; the log file has them"
            super().emit(logging.LogRecord(record.name, record.levelno, __file__, 0, text, None, None))
