"""Count the events and stream datum indices of runs, by stream.

The RunEngine's side counts what it emits and the callback what it has read: where the numbers are equal, no document
with a frame is missing, whichever way the documents went.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

Document = Mapping[str, Any]

_KEPT_RUNS = 100


class DocumentCounts:
    """Processes documents; a run is forgotten with `forget`, or when a hundred later ones have started.

    >>> counts = DocumentCounts()
    >>> counts("start", {"uid": "1f"})
    >>> counts("descriptor", {"uid": "d", "run_start": "1f", "name": "primary"})
    >>> counts("event", {"descriptor": "d", "seq_num": 1})
    >>> counts.of("1f")
    {'primary': 1}
    """

    def __init__(self) -> None:
        self._runs: dict[str, Counter[str]] = {}
        self._streams: dict[str, tuple[str, str]] = {}
        """Run and stream of each descriptor."""

    def __call__(self, name: str, document: Document) -> None:
        """Count one document; those of unknown descriptors are ignored."""
        match name:
            case "start":
                self._run(document["uid"])
            case "descriptor":
                self._run(document["run_start"])  # first: it fails if this is no uid
                self._streams[document["uid"]] = document["run_start"], document.get("name") or "primary"
            case "event":
                self._add(document, 1)
            case "event_page":
                self._add(document, len(document["seq_num"]))
            case "stream_datum":
                self._add(document, document["indices"]["stop"] - document["indices"]["start"])

    def of(self, run_uid: str) -> dict[str, int]:
        """Return the numbers of a run, by stream; empty for an unknown one."""
        return dict(self._runs.get(run_uid, {}))

    def forget(self, run_uid: str) -> None:
        """Drop a run that has ended."""
        if self._runs.pop(run_uid, None) is not None:
            self._streams = {uid: of for uid, of in self._streams.items() if of[0] != run_uid}

    def _run(self, run_uid: str) -> None:
        self._runs.setdefault(run_uid, Counter())
        if len(self._runs) > _KEPT_RUNS:
            self.forget(next(iter(self._runs)))

    def _add(self, document: Document, count: int) -> None:
        run_uid, stream = self._streams.get(document["descriptor"], ("", ""))
        if run_uid in self._runs:
            self._runs[run_uid][stream] += count
