"""Telling people, once for each run, that its documents can't be taken in."""

import logging

_log = logging.getLogger(__name__)

_KEPT_RUNS = 100


class DocumentErrorLog:
    """Tells of the first document of a run that can't be taken in, and at the run's end how many there were.

    `run_uid` is "" if nobody knows.
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def begin(self) -> None:
        """A run has begun: documents without a run are worth telling again."""
        self._counts.pop("", None)

    def tell(self, run_uid: str, document: str, error: Exception) -> None:
        """A document of the kind `document` could not be taken in."""
        count = self._counts[run_uid] = self._counts.get(run_uid, 0) + 1
        if count == 1:
            _log.error(
                "a %r document could not be taken in; frames that need it will not be converted (run %s; told once in "
                "a run). The plan goes on. Name these files to the server, by its command AddFiles.",
                document,
                run_uid or "unknown",
                exc_info=error,
            )
        while len(self._counts) > _KEPT_RUNS:
            self._counts.pop(next(iter(self._counts)))

    def end(self, run_uid: str) -> None:
        """A run has ended."""
        count = self._counts.pop(run_uid, 0)
        if run_uid and count > 1:
            _log.error("run %s: %d documents in all could not be taken in", run_uid, count)
