"""Telling people, once, that frames pile up before a server that does not take them, and once that they flow again."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from petif_bluesky.link import LinkDownError, ServerFullError

_log = logging.getLogger(__name__)


class PileUpReporter:
    """One warning for each kind of trouble until frames flow again; then one more. Called by one thread."""

    def __init__(self, place: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._place = place
        self._clock = clock
        self._since: float | None = None
        self._told: set[type[Exception]] = set()

    def stuck(self, count: Callable[[], int], error: Exception) -> None:
        """So many frames as `count` tells, which may take its time, could not be delivered."""
        if self._since is None:
            self._since = self._clock()
        if type(error) in self._told:
            return
        self._told.add(type(error))
        waiting = count()
        _log.warning(
            "the conversion server has taken nothing since %s; %s wait in %s until it does. "
            "Runs go on, and nothing is lost. %s%s",
            _clock_time(self._since),
            f"{waiting} frames and all that follow" if waiting else "all frames",
            self._place,
            str(error),
            _advice(error),
            exc_info=None if isinstance(error, LinkDownError) else error,
        )

    def flows(self, count: Callable[[], int]) -> None:
        """The first of what was stuck are delivered; `count` tells how many frames still wait."""
        if self._since is not None:
            _log.warning(
                "the conversion server takes frames again; %d more have waited since %s (%.0f s)",
                count(),
                _clock_time(self._since),
                self._clock() - self._since,
            )
        self._since = None
        self._told.clear()


def _clock_time(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def _advice(error: Exception) -> str:
    if isinstance(error, ServerFullError):
        return " It frees itself as it converts; if it does not, look at its Status for what is full."
    if isinstance(error, LinkDownError):
        return ""  # the error says it
    return " If this lasts, look at the log of the server."
