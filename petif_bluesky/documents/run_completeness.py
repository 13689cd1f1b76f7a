"""Compare what a stop document says was emitted with what was received. Pure.

For transports that may lose documents, such as 0MQ.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from petif_bluesky.documents.file_series import MOST_FRAMES
from petif_bluesky.documents.selection import is_own_stream

Document = Mapping[str, Any]

_KEPT_RUNS = 100
_MOST_NUMBERS = 20
_REMEDY = "Their frames are not converted. Submit the files with the server's command AddFiles."


@dataclass(slots=True)
class _Run:
    started: bool = False
    streams: dict[str, str] = field(default_factory=dict)
    """Stream names by descriptor."""
    keys: dict[str, str] = field(default_factory=dict)
    """Data keys by stream resource."""
    events: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    datums: dict[str, dict[str, set[int]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(set)))
    """For each stream and external key, the seq_nums covered by stream datums."""

    def describe(self, descriptor: Document) -> None:
        stream = self.streams[descriptor["uid"]] = descriptor.get("name", "primary")
        for key, described in descriptor["data_keys"].items():
            if str(described.get("external", "")).startswith("STREAM"):
                self.datums[stream].setdefault(key, set())

    def count(self, name: str, document: Document) -> None:
        stream = self.streams[document["descriptor"]]
        if name == "stream_datum":
            key, span = self.keys.get(document["stream_resource"]), document["seq_nums"]
            if key is not None and span["stop"] - span["start"] <= MOST_FRAMES:
                self.datums[stream][key].update(range(span["start"], span["stop"]))
        else:
            self.events[stream].update([document["seq_num"]] if name == "event" else document["seq_num"])


class CompletenessCheck:
    """Processes documents, and at each stop document returns messages about what is missing from the run."""

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}

    def feed(self, name: str, document: Document) -> list[str]:
        """Return messages about what is missing if this is a stop document; an empty list otherwise."""
        match name:
            case "start":
                self._run(document["uid"]).started = True
            case "descriptor":
                self._run(document["run_start"]).describe(document)
            case "stream_resource":
                self._run(document["run_start"]).keys[document["uid"]] = document["data_key"]
            case "event" | "event_page" | "stream_datum":
                for run in self._runs.values():
                    if document["descriptor"] in run.streams:
                        run.count(name, document)
            case "stop":
                return _missing(document, self._runs.pop(document["run_start"], _Run()))
        return []

    def _run(self, uid: str) -> _Run:
        run = self._runs.setdefault(uid, _Run())
        if len(self._runs) > _KEPT_RUNS:
            del self._runs[next(iter(self._runs))]
        return run


def _missing(stop: Document, run: _Run) -> list[str]:
    uid = stop["run_start"]
    missing = []
    if not run.started:
        missing.append(
            f"run {uid}: the start document, which has the recipe, was not received: none of its frames is "
            "converted. Submit the files with the server's command AddFiles."
        )
    for stream, count in (stop.get("num_events") or {}).items():
        if not is_own_stream(stream):
            missing += [f"run {uid}: {words}" for words in _gaps(run, stream, count)]
    return missing


def _gaps(run: _Run, stream: str, count: int) -> list[str]:
    series = {f"frames of {key!r}": seen for key, seen in run.datums.get(stream, {}).items()}
    if run.events.get(stream) or not series:  # a fly scan has no events
        series["events"] = run.events.get(stream, set())
    messages = []
    for what, seen in series.items():
        lacking = count - sum(1 <= number <= count for number in seen)
        if lacking > 0:
            first = islice((number for number in range(1, count + 1) if number not in seen), _MOST_NUMBERS)
            numbers = ", ".join(map(str, first)) + (" ..." if lacking > _MOST_NUMBERS else "")
            messages.append(
                f"{lacking} of {count} {what} of stream {stream!r} were not received: seq_num {numbers}. {_REMEDY}"
            )
    return messages
