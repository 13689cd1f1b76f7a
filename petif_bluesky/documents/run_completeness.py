"""What a run says at its end that it has emitted, against what was seen of it. Pure.

For transports that may lose documents, as 0MQ does.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from petif_bluesky.documents.selection import OWN_STREAMS

Document = Mapping[str, Any]

_KEPT_RUNS = 100
_MOST_NUMBERS = 20
_REMEDY = "Their frames are not converted: name the files to the server, by its command AddFiles."


@dataclass(slots=True)
class _Run:
    started: bool = False
    events: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    datums: dict[str, dict[str, set[int]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(set)))
    """For each stream: for each external key the seq_nums that its stream datums cover."""
    descriptors: list[str] = field(default_factory=list)
    resources: list[str] = field(default_factory=list)


class CompletenessCheck:
    """Takes documents in; at each stop document it returns, in words, what of the run is missing."""

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}
        self._streams: dict[str, tuple[str, str]] = {}
        """For each descriptor its run and the stream's name."""
        self._keys: dict[str, str] = {}
        """For each stream resource the data key."""

    def feed(self, name: str, document: Document) -> list[str]:
        """Return what is missing of the run that this document ends; nothing for all other documents."""
        match name:
            case "start":
                self._run(document["uid"]).started = True
            case "descriptor":
                self._describe(document)
            case "event":
                self._count(document["descriptor"], [document["seq_num"]])
            case "event_page":
                self._count(document["descriptor"], document["seq_num"])
            case "stream_resource":
                self._keys[document["uid"]] = document["data_key"]
                self._run(document["run_start"]).resources.append(document["uid"])
            case "stream_datum":
                self._count_datum(document)
            case "stop":
                return self._end(document)
        return []

    def _run(self, uid: str) -> _Run:
        run = self._runs.setdefault(uid, _Run())
        while len(self._runs) > _KEPT_RUNS:
            self._forget(next(iter(self._runs)))
        return run

    def _describe(self, document: Document) -> None:
        run = self._run(document["run_start"])
        stream = document.get("name", "primary")
        self._streams[document["uid"]] = (document["run_start"], stream)
        run.descriptors.append(document["uid"])
        for key, described in document["data_keys"].items():
            if str(described.get("external", "")).startswith("STREAM"):
                run.datums[stream].setdefault(key, set())

    def _count(self, descriptor: str, numbers: list[int]) -> None:
        if descriptor in self._streams:
            run_uid, stream = self._streams[descriptor]
            self._run(run_uid).events[stream].update(numbers)

    def _count_datum(self, document: Document) -> None:
        key = self._keys.get(document["stream_resource"])
        if document["descriptor"] in self._streams and key is not None:
            run_uid, stream = self._streams[document["descriptor"]]
            span = document["seq_nums"]
            self._run(run_uid).datums[stream][key].update(range(span["start"], span["stop"]))

    def _end(self, stop: Document) -> list[str]:
        uid = stop["run_start"]
        run = self._runs.get(uid, _Run())
        missing = []
        if not run.started:
            missing.append(
                f"run {uid}: its start document never came, and the recipe is in it. None of its frames is converted: "
                "name the files to the server, by its command AddFiles."
            )
        for stream, count in (stop.get("num_events") or {}).items():
            if not any(fnmatchcase(stream, own) for own in OWN_STREAMS):
                missing += [f"run {uid}: {words}" for words in _gaps(run, stream, count)]
        self._forget(uid)
        return missing

    def _forget(self, uid: str) -> None:
        run = self._runs.pop(uid, _Run())
        for descriptor in run.descriptors:
            self._streams.pop(descriptor, None)
        for resource in run.resources:
            self._keys.pop(resource, None)


def _gaps(run: _Run, stream: str, count: int) -> list[str]:
    series = {f"the frames of {key!r}": seen for key, seen in run.datums.get(stream, {}).items()}
    if run.events.get(stream) or not series:  # a fly scan has no events
        series["the events"] = run.events.get(stream, set())
    told = []
    for what, seen in series.items():
        lacking = [number for number in range(1, count + 1) if number not in seen]
        if lacking:
            numbers = ", ".join(map(str, lacking[:_MOST_NUMBERS])) + (" ..." if len(lacking) > _MOST_NUMBERS else "")
            told.append(
                f"{len(lacking)} of {count} of {what} of stream {stream!r} never came: seq_num {numbers}. {_REMEDY}"
            )
    return told
