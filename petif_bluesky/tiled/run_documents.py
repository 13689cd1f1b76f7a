"""Reconstruct the documents of a run from a Tiled catalogue.

`run.documents()` of bluesky-tiled-plugins needs an exporter that few Tiled servers have, and it makes one template for
the files of a key, or drops all but the first file if no template fits (gaps, `-00001` names, several folders). Tiled's
assets have the name of each file, so the documents are made from these, with a stream resource and a literal name for
each file; the frames of an HDF5 file are numbered in their order. Runs that Tiled serves from other databases, such as
MongoDB, have their own documents.
"""

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from petif_bluesky.documents.literal_uri import literal_uri
from petif_bluesky.documents.mime_types import HDF5, MANY_TIFFS
from petif_bluesky.documents.uris import path_of_uri

Document = Mapping[str, Any]
Named = tuple[str, Document]
Timed = tuple[float, list[Named]]
"""The documents of an event, and its time."""

_TABLE = "internal"
_TIMES = "ts_"
_OF_FILES = {"data_uri", "data_uris"}
_STACKED_AXES = 3  # frames, rows, columns; events come before them if they are not joined with the frames


def documents_of(run: Any, takes_stream: Callable[[str], bool]) -> Iterator[Named]:
    """Yield the documents of a run that concern frames, with several requests per stream.

    Events of all streams are ordered by time, so that a dark comes before the frames that were taken after it. If the
    configuration of a device changed during the run, the first one is used.

    Parameters
    ----------
    run: the Tiled client of the run, or any object with `documents()`
    takes_stream: returns whether to include the stream of that name

    """
    if not _is_of_tables(run):
        yield from run.documents()
        return
    start = run.metadata["start"]
    yield "start", start
    every = {name: _Stream(run[name], name, start["uid"]) for name in run}
    keys = {key for name, stream in every.items() if takes_stream(name) for key in stream.external}
    # others that read the same detectors may have frames of these streams in their arrays, or theirs in these
    streams = [each for name, each in every.items() if takes_stream(name) or keys.intersection(each.external)]
    for stream in streams:
        for key in stream.external:
            if key in stream.base:
                sharers = [each for each in streams if key in each.external and key not in each.base]
                stream.announce(key, sharers)
    for _, documents in heapq.merge(*(stream.documents() for stream in streams), key=_time_of):
        yield from documents
    yield "stop", {"run_start": start["uid"]}


def _is_of_tables(run: Any) -> bool:
    """Return whether a run was written as tables by a TiledWriter."""
    item = getattr(run, "item", None) or {}
    specs = item.get("attributes", {}).get("specs", ())
    return any(spec["name"] == "BlueskyRun" and str(spec["version"]).startswith("3.") for spec in specs)


class _Stream:
    """A stream: its descriptor, the rows of its events, and for each row the documents that announce its files."""

    def __init__(self, stream: Any, name: str, run_uid: str) -> None:
        self.base = stream.base
        self.descriptor = {**stream.metadata, "name": name, "run_start": run_uid}
        self.external = [key for key, described in self.descriptor["data_keys"].items() if described.get("external")]
        self.files: dict[int, list[Named]] = {}

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of its events."""
        return self.base[_TABLE].read().to_dict(orient="records") if _TABLE in self.base else []

    def announce(self, key: str, sharers: Sequence["_Stream"]) -> None:
        """Announce the files of a key, also in streams that share them.

        ophyd-async has one stream resource for all streams of a run, and a TiledWriter puts all its frames into the
        first of these: their order is that of the events.
        """
        array = self.base[key]
        count = _events_in(array.shape, self.descriptor["data_keys"][key]["shape"])
        if count == len(self.rows):
            sharers = []
        places = [(stream, place) for stream in (self, *sharers) for place in range(len(stream.rows))]
        if sharers:
            places.sort(key=lambda each: float(each[0].rows[each[1]]["time"]))
        numbers = [int(stream.rows[place]["seq_num"]) for stream, place in places]
        is_unknown = bool(sharers) and count != len(places)
        for index, documents in _files(array, key, self.descriptor, numbers):
            stream, place = places[index] if sharers and not is_unknown else (self, index)
            for name, document in documents:
                changed = {"descriptor": stream.descriptor["uid"]} if name == "stream_datum" else {}
                if name == "stream_resource" and is_unknown:
                    shared = ", ".join(each.descriptor["name"] for each in (self, *sharers))
                    changed = {"mimetype": f"{count} frames for {len(places)} events of the streams {shared}"}
                stream.files.setdefault(place, []).append((name, {**document, **changed}))

    def documents(self) -> Iterator[Timed]:
        """Yield the documents."""
        time = float(self.descriptor.get("time", 0.0))
        yield time, [("descriptor", self.descriptor)]
        for place, row in enumerate(self.rows):
            time = max(time, float(row["time"]))
            yield time, [*self.files.pop(place, ()), ("event", _event(row, place, self.descriptor["uid"]))]
        yield time, [document for left in self.files.values() for document in left]


def _time_of(timed: Timed) -> float:
    return timed[0]


def _files(array: Any, key: str, descriptor: Document, numbers: Sequence[int]) -> Iterator[tuple[int, list[Named]]]:
    """Yield, for each file of an array and each event in it, the event's row and the documents that announce it.

    `numbers` are those of the rows; a number may come twice, because the event was taken again after a pause.
    """
    (source,) = array.data_sources()
    uris = [asset.data_uri for asset in sorted(source.assets, key=_place) if asset.parameter in _OF_FILES]
    count = _events_in(array.shape, descriptor["data_keys"][key]["shape"])
    if len(numbers) == count:
        rows: Sequence[int] = range(count)
    else:  # some events have no image, or there are no events
        of_numbers = {number: row for row, number in enumerate(numbers)}
        numbers = range(1, count + 1)
        rows = [of_numbers.get(number, len(of_numbers) + number) for number in numbers]
    for index, uri in enumerate(uris):
        resource = {
            "uid": f"{descriptor['uid']}/{key}/{index}",
            "run_start": descriptor["run_start"],
            "data_key": key,
            "mimetype": source.mimetype,
            **_named(uri, source),
        }
        events = [index * count // len(uris)] if count else []
        if source.mimetype == HDF5:
            resource |= _stacked(array, source, files=len(uris), events=count)
            events = list(range(count)) if len(uris) == 1 else events
        for place, event in enumerate(events):
            start = place if source.mimetype == HDF5 else event
            datum = {
                "uid": f"{resource['uid']}/{place}",
                "stream_resource": resource["uid"],
                "descriptor": descriptor["uid"],
                "indices": {"start": start, "stop": start + 1},
                "seq_nums": {"start": numbers[event], "stop": numbers[event] + 1},
            }
            documents: list[Named] = [("stream_datum", datum)]
            yield rows[event], documents if place else [("stream_resource", resource), *documents]


def _stacked(array: Any, source: Any, *, files: int, events: int) -> dict[str, Any]:
    """Return fields of the resource of an HDF5 file, with the number of its frames per event.

    Several files must have the same number of frames each: if they do not, the frames of an event are unknown.
    """
    if files > 1 and (not events or files % events):
        return {"mimetype": f"{files} files ({HDF5}) for {events} events"}
    frames = array.shape[1] if len(array.shape) > _STACKED_AXES else max(1, array.shape[0] // max(1, events))
    return {"parameters": {**source.parameters, "multiplier": max(1, frames * events // max(events, files))}}


def _place(asset: Any) -> int:
    return asset.num or 0


def _events_in(shape: Sequence[int], of_event: Sequence[int]) -> int:
    """Return the number of events in an array, which are stacked or joined along the first axis."""
    return shape[0] if len(shape) > len(of_event) else max(1, shape[0] // max(1, of_event[0]))


def _named(uri: str, source: Any) -> dict[str, Any]:
    path = path_of_uri(uri)
    if source.mimetype != MANY_TIFFS or path is None:
        return {"uri": uri, "parameters": dict(source.parameters)}
    place, template = literal_uri(path)
    return {"uri": place, "parameters": {"template": template, "chunk_shape": [1]}}


def _event(row: Mapping[str, Any], place: int, descriptor_uid: str) -> Document:
    keys = [key for key in row if key not in {"seq_num", "time"} and not key.startswith(_TIMES)]
    return {
        "uid": f"{descriptor_uid}/{place}",
        "descriptor": descriptor_uid,
        "seq_num": int(row["seq_num"]),
        "time": row["time"],
        "data": {key: row[key] for key in keys},
        "timestamps": {key: row[f"{_TIMES}{key}"] for key in keys if f"{_TIMES}{key}" in row},
        "filled": {},
    }
