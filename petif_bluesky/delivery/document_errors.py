"""Log document errors, once per run."""

import logging

_log = logging.getLogger(__name__)

_KEPT_RUNS = 100


class DocumentErrorLog:
    """Logs the first document error of a run, and at the end of the run how many there were.

    `run_uid` is "" if unknown.
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def begin(self) -> None:
        """A run has started: log errors of documents without a known run again."""
        self._counts.pop("", None)

    def record(self, run_uid: str, document: str, error: Exception) -> None:
        """A document of type `document` could not be processed."""
        count = self._counts[run_uid] = self._counts.get(run_uid, 0) + 1
        if count == 1:
            _log.error(
                "Cannot process a %r document of run %s (logged once per run): frames that need it will not be "
                "converted. The plan continues. Submit these files with the server's command AddFiles.",
                document,
                run_uid or "unknown",
                exc_info=error,
            )
        while len(self._counts) > _KEPT_RUNS:
            self._counts.pop(next(iter(self._counts)))

    def count(self, run_uid: str) -> int:
        """Return how many documents of a run could not be processed."""
        return self._counts.get(run_uid, 0)

    def end(self, run_uid: str) -> None:
        """A run has ended; log how many documents failed."""
        count = self._counts.pop(run_uid, 0)
        if run_uid and count > 1:
            _log.error("run %s: %d documents could not be processed in total", run_uid, count)
