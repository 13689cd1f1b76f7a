"""Collect the metadata of a frame for its request to the server. Pure.

Frame metadata are a flat dict, so that file name templates (`{sample_name}_{seq_num:04d}`) and angles in ESPERANTO
headers can use the names in the documents. It holds single values only:

- `start_keys` of the start document;
- the configuration of the object that took the image (`configuration` adds keys of other objects);
- the latest readings of the stream `baseline`;
- the data of the frame's event, unless external.

If a name occurs twice, the later source in this list wins. Also included are `number`, the event's `time` and
`timestamps`, `units` where known, `shape`, `exposure_time` in s and, if something could not be sent, `left_out` with
the reasons.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from petif_bluesky.documents.descriptors import owners_in
from petif_bluesky.documents.detector_settings import exposure_time_of, units_in
from petif_bluesky.documents.json_values import Values
from petif_bluesky.metadata import START_KEYS, MetadataSelection
from tango_server.limits import LARGEST_METADATA
from tango_server.recipe.esperanto import Esperanto

Document = Mapping[str, Any]

OWN_KEYS = frozenset({"seq_num", "number", "time", "timestamps", "units", "shape", "exposure_time", "left_out"})
"""Reserved names; a data key with one of them is left out."""
_MOST_NOTES = 20
_ROOM_FOR_NOTES = 16 * 2**10
_NO_ROOM = "the metadata are too large"


@dataclass(frozen=True, slots=True)
class _Described:
    """The metadata in a descriptor."""

    external: frozenset[str]
    owners: dict[str, str]
    units: dict[str, str]
    configuration: dict[str, Values]
    """By object, for this stream."""


_NOT_DESCRIBED = _Described(frozenset(), {}, {}, {})


class RunMetadata:
    """Metadata from the documents of one run so far.

    All methods raise KeyError, ValueError, TypeError or AttributeError if a document does not follow the event model.
    """

    def __init__(self, selection: MetadataSelection) -> None:
        self._selection = selection
        self._start = Values()
        self._baseline = Values()
        self._baseline_units: dict[str, str] = {}
        self._described: dict[str, _Described] = {}

    def begin(self, start: Document, esperanto: Esperanto | None) -> None:
        """Process the start document; `esperanto` are the ESPERANTO settings of the recipe."""
        patterns = self._selection.start
        named = tuple(esperanto.fields) if esperanto is not None else ()
        self._start = _taken(start, (*START_KEYS, *named) if patterns is None else patterns, requested=bool(patterns))

    def describe(self, document: Document) -> None:
        """Process a descriptor."""
        keys: Mapping[str, Document] = document["data_keys"]
        self._described[document["uid"]] = _Described(
            external=frozenset(key for key, described in keys.items() if described.get("external")),
            owners=owners_in(document),
            units=units_in(document),
            configuration={
                owner: _taken(configuration.get("data", {}), self._selection.configuration)
                for owner, configuration in document.get("configuration", {}).items()
            },
        )

    def read_baseline(self, event: Document) -> None:
        """Process an event of the stream `baseline`."""
        described = self._described[event["descriptor"]]
        self._baseline.lay_over(_taken(_internal(event, described), self._selection.baseline))
        self._baseline_units.update(described.units)

    def of(
        self,
        descriptor: str,
        data_key: str,
        *,
        seq_num: int,
        number: int = 0,
        shape: tuple[int, int] | None = None,
        event: Document | None = None,
    ) -> dict[str, Any]:
        """Return the metadata of a frame, JSON-compatible and within the server's size limit.

        Parameters
        ----------
        descriptor: uid of the descriptor
        data_key, seq_num: of the image
        number: index among the frames of its event, from 0
        shape: (rows, columns), if the descriptor has it
        event: the event of the frame; None if stream datums come without events, as in fly scans

        """
        described = self._described.get(descriptor, _NOT_DESCRIBED)
        values, own = Values(), _own_facts(seq_num, number, shape, event)
        values.lay_over(self._start)
        for configuration in self._configurations(described, data_key):
            values.lay_over(configuration)
        values.lay_over(self._baseline)
        if event is not None:
            read = _taken(_internal(event, described), self._selection.event)
            values.lay_over(read)
            own["timestamps"] = _timestamps(event, read.fit)
        own.update(_exposure(described, data_key, values.fit))
        units = {**self._baseline_units, **described.units}
        if units := {name: units[name] for name in values.fit if name in units}:
            own["units"] = units
        return _bounded(own, values)

    def _configurations(self, described: _Described, data_key: str) -> Iterator[Values]:
        """Yield the configuration for an image; that of its own object last, so that it takes precedence."""
        owner = described.owners.get(data_key, "")
        if self._selection.configuration is not None:
            yield from (values for name, values in described.configuration.items() if name != owner)
        if owner in described.configuration:
            yield described.configuration[owner]


def _own_facts(seq_num: int, number: int, shape: tuple[int, int] | None, event: Document | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"seq_num": seq_num, "number": number}
    if shape is not None:
        facts["shape"] = list(shape)
    if event is not None:
        stamp = Values()
        stamp.take("time", event.get("time"))
        facts.update(stamp.fit)
    return facts


def _internal(event: Document, described: _Described) -> dict[str, Any]:
    filled = event.get("filled", {})
    return {key: value for key, value in event["data"].items() if key not in described.external and key not in filled}


def _timestamps(event: Document, names: Iterable[str]) -> dict[str, Any]:
    stamps = event.get("timestamps", {})
    values = Values()
    for name in names:
        if name in stamps:
            values.take(name, stamps[name])
    return values.fit


def _exposure(described: _Described, data_key: str, values: Mapping[str, Any]) -> dict[str, float]:
    """Return the exposure time of the object that took an image, in s, if it has one in a known unit."""
    owner = described.owners.get(data_key, "")
    seconds = exposure_time_of(owner, values, described.units)
    return {} if seconds is None else {"exposure_time": seconds}


def _bounded(own: dict[str, Any], values: Values) -> dict[str, Any]:
    """Combine all metadata within the server's size limit."""
    if len(json.dumps(own)) > LARGEST_METADATA // 2:
        for dispensable in ("timestamps", "units"):
            if own.pop(dispensable, None) is not None:
                values.left_out = {dispensable: _NO_ROOM, **values.left_out}
    room = LARGEST_METADATA - _ROOM_FOR_NOTES - len(json.dumps(own))
    if len(json.dumps(values.fit)) > room:
        _drop_to_fit(values, room)
    metadata = {**values.fit, **own}
    if values.left_out:
        metadata["left_out"] = _notes(values.left_out)
    return metadata


def _drop_to_fit(values: Values, room: int) -> None:
    """Leave out what exceeds the limit, the first values first: later ones matter more."""
    for key in reversed(list(values.fit)):
        room -= len(json.dumps({key: values.fit[key]})) + 2
        if room < 0:
            del values.fit[key]
            values.left_out[key] = _NO_ROOM


def _notes(left_out: Mapping[str, str]) -> dict[str, str]:
    names = list(left_out)
    notes = {name[:100]: left_out[name] for name in names[:_MOST_NOTES]}
    if len(names) > _MOST_NOTES:
        notes["..."] = f"and {len(names) - _MOST_NOTES} more"
    return notes


def _taken(data: Mapping[str, Any], patterns: tuple[str, ...] | None, *, requested: bool = True) -> Values:
    """Return the values with matching names, all if `patterns` is None; report missing ones only if `requested`."""
    values = Values(OWN_KEYS)
    chosen = data if patterns is None else [name for name in data if any(fnmatchcase(name, each) for each in patterns)]
    for key in chosen:
        values.take(key, data[key], requested=requested and patterns is not None)
    return values
