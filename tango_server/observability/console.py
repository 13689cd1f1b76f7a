"""Rate-limited warnings on standard error."""

import logging
import time
from collections.abc import Callable
from typing import TextIO

from tango_server.observability.formatters import LineFormatter

_BURST = 10
_WINDOW = 60.0  # s


def log_to_stderr(*, verbose: bool) -> None:
    """Log warnings to standard error, with `verbose` also information; does nothing if logging is already set up."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[RateLimitedHandler()])


class RateLimitedHandler(logging.StreamHandler[TextIO]):
    """Writes at most ten messages a minute from one place in the program, and says when it drops more."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self.setFormatter(LineFormatter("{asctime} {levelname} {name}: {message}", style="{"))
        self._clock = clock
        self._windows: dict[tuple[str, int], tuple[float, int]] = {}
        """For each place the start of its minute, and its number of messages since then."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the message, unless there were too many from the same place."""
        now, place = self._clock(), (record.pathname, record.lineno)
        begun, written = self._windows.get(place, (now, 0))
        if now - begun >= _WINDOW:
            begun, written = now, 0
        self._windows[place] = begun, written + 1
        if written < _BURST:
            super().emit(record)
        elif written == _BURST:
            text = f"Similar messages are suppressed here for {_WINDOW:g} s; the log file has them."
            super().emit(logging.LogRecord(record.name, record.levelno, __file__, 0, text, None, None))
