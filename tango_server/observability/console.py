"""Standard error of a server: warnings for people, and no flood of them."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from tango_server.observability.formatters import ConsoleFormatter

_BURST = 10
_WINDOW = 60.0


def log_to_stderr(*, verbose: bool) -> None:
    """Write warnings to standard error, with `verbose` more; a program that has set up its logging is left alone."""
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[RateLimitedHandler()])


class RateLimitedHandler(logging.StreamHandler[TextIO]):
    """Writes at most ten messages a minute from one place in the program, and says when it leaves the others out."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self.setFormatter(ConsoleFormatter())
        self._clock = clock
        self._places: dict[tuple[str, int], _Place] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write the message, unless there were too many like it."""
        now = self._clock()
        place = self._places.setdefault((record.pathname, record.lineno), _Place(now))
        if now - place.since >= _WINDOW:
            place.since, place.seen = now, 0
        place.seen += 1
        if place.seen <= _BURST:
            super().emit(record)
        elif place.seen == _BURST + 1:
            text = f"more messages like the last one are left out here for {_WINDOW:g} s; the log file has them"
            super().emit(logging.LogRecord(record.name, record.levelno, __file__, 0, text, None, None))


@dataclass(slots=True)
class _Place:
    """How often a place in the program has had something to say since an instant."""

    since: float
    seen: int = 0
