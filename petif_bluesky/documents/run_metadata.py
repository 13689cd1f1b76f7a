"""What a run's documents tell of a frame besides its path, for the request that goes to the server. Pure.

The metadata of a frame are flat, so that a template of file names (`{sample_name}_{seq_num:04d}`) and the angles of an
ESPERANTO header can name them as the documents do. They hold single values only:

- `start_keys` of the start document;
- the configuration of the object that took the image (`configuration` adds keys of others);
- the latest readings of the stream `baseline`;
- the data of the frame's event, unless they are external;

where a name comes twice, the later one of these holds. Besides: `number`, `time` and `timestamps` of the event,
`units` of what has some, `shape`, `exposure_time` in s and, where something could not travel, `left_out` with the
reasons.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from petif_bluesky.documents.descriptors import owners_in
from petif_bluesky.documents.json_values import Values
from petif_bluesky.metadata import START_KEYS, MetadataSelection
from tango_server.limits import LARGEST_METADATA
from tango_server.recipe.esperanto import Esperanto

Document = Mapping[str, Any]

OWN_KEYS = frozenset({"seq_num", "number", "time", "timestamps", "units", "shape", "exposure_time", "left_out"})
"""Names that no data key may take; one that is called so is left out."""
_EXPOSURES = ("exposure_time", "acquire_time")
_SECONDS = {"s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0}
_MOST_NOTES = 20
_ROOM_FOR_NOTES = 16 * 2**10
_NO_ROOM = "there was no room for it"


@dataclass(frozen=True, slots=True)
class _Described:
    """What a descriptor says besides its images."""

    external: frozenset[str]
    owners: dict[str, str]
    units: dict[str, str]
    configuration: dict[str, Values]
    """For each object; of this stream."""


_NOT_DESCRIBED = _Described(frozenset(), {}, {}, {})


class RunMetadata:
    """What the documents of one run have said so far.

    All methods raise KeyError, ValueError, TypeError or AttributeError if a document does not follow the event model.
    """

    def __init__(self, selection: MetadataSelection) -> None:
        self._selection = selection
        self._start = Values()
        self._baseline = Values()
        self._baseline_units: dict[str, str] = {}
        self._described: dict[str, _Described] = {}

    def begin(self, start: Document, esperanto: Esperanto | None) -> None:
        """Take the start document in; `esperanto` is what the recipe says of ESPERANTO headers."""
        patterns = self._selection.start
        named = tuple(esperanto.fields) if esperanto is not None else ()
        self._start = _taken(start, (*START_KEYS, *named) if patterns is None else patterns, asked_for=bool(patterns))

    def describe(self, document: Document) -> None:
        """Take a descriptor in."""
        keys: Mapping[str, Document] = document["data_keys"]
        self._described[document["uid"]] = _Described(
            external=frozenset(key for key, described in keys.items() if described.get("external")),
            owners=owners_in(document),
            units=_units(document),
            configuration={
                owner: _taken(configuration.get("data", {}), self._selection.configuration)
                for owner, configuration in document.get("configuration", {}).items()
            },
        )

    def read_baseline(self, event: Document) -> None:
        """Take an event of the stream `baseline` in."""
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
        """Return the metadata of a frame, fit for JSON and for the server's limit.

        Parameters
        ----------
        descriptor: its uid
        data_key, seq_num: of the frame's image
        number: among the frames of its event, from 0
        shape: (rows, columns), if the descriptor says it
        event: which it belongs to; None where stream datums come without events, as in fly scans

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
        """Yield what holds for an image; its own object's last, so that nobody else's hides it."""
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
    """Return the exposure time of the object that took an image, in s, if it tells one in a unit that is known."""
    owner = described.owners.get(data_key)
    for ending in _EXPOSURES if owner else ():
        for key, value in values.items():
            fits = key.startswith(f"{owner}_") and key.endswith(ending) and isinstance(value, int | float)
            factor = _SECONDS.get(described.units.get(key, "s"))
            if fits and factor is not None:
                return {"exposure_time": float(value) * factor}
    return {}


def _bounded(own: dict[str, Any], values: Values) -> dict[str, Any]:
    """Put all together, within the server's cap."""
    if len(json.dumps(own)) > LARGEST_METADATA // 2:
        for dispensable in ("timestamps", "units"):
            if own.pop(dispensable, None) is not None:
                values.left_out = {dispensable: _NO_ROOM, **values.left_out}
    room = LARGEST_METADATA - _ROOM_FOR_NOTES - len(json.dumps(own))
    if len(json.dumps(values.fit)) > room:
        _shorten(values, room)
    metadata = {**values.fit, **own}
    if values.left_out:
        metadata["left_out"] = _notes(values.left_out)
    return metadata


def _shorten(values: Values, room: int) -> None:
    """Leave out what does not fit; what came last is the dearest."""
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


def _taken(data: Mapping[str, Any], patterns: tuple[str, ...] | None, *, asked_for: bool = True) -> Values:
    """Return the values whose names fit the patterns, None for all; only what was `asked_for` is missed."""
    values = Values(OWN_KEYS)
    chosen = data if patterns is None else [name for name in data if any(fnmatchcase(name, each) for each in patterns)]
    for key in chosen:
        values.take(key, data[key], asked_for=asked_for and patterns is not None)
    return values


def _units(document: Document) -> dict[str, str]:
    keys = dict(document["data_keys"])
    for configuration in document.get("configuration", {}).values():
        keys.update(configuration.get("data_keys", {}))
    return {key: described["units"] for key, described in keys.items() if described.get("units")}
