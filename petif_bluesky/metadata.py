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
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from petif_bluesky.documents.frame import Frame
from petif_bluesky.documents.json_values import Values
from petif_bluesky.documents.rotation_scans import esperanto_of
from tango_server.limits import LARGEST_METADATA

Document = Mapping[str, Any]

START_KEYS = (
    "scan_id", "plan_name", "sample_name", "sample_id", "sample_composition", "operator", "proposal_id", "beamline_id",
    "wavelength", "incident_wavelength", "energy", "incident_energy", "detector_distance", "beam_center_x",
    "beam_center_y", "pixel_size", "x_pixel_size", "y_pixel_size",
)  # fmt: skip
OWN_KEYS = frozenset({"seq_num", "number", "time", "timestamps", "units", "shape", "exposure_time", "left_out"})
"""Names that no data key may take; one that is called so is left out."""
_BASELINE = "baseline"
_EXPOSURES = ("exposure_time", "acquire_time")
_SECONDS = {"s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0}
_MOST_NOTES = 20
_ROOM_FOR_NOTES = 16 * 2**10
_NO_ROOM = "there was no room for it"
_KEPT_RUNS = 100


@dataclass(frozen=True, slots=True)
class MetadataSelection:
    """Which keys travel with a frame, as patterns of names (`motor_*`).

    Parameters
    ----------
    start: of the start document; None for `START_KEYS`, and those that the run's recipe names for ESPERANTO headers
    configuration: of any object's configuration; None for all of the object that took the image
    baseline, event: of these readings; None for all

    """

    start: tuple[str, ...] | None = None
    configuration: tuple[str, ...] | None = None
    baseline: tuple[str, ...] | None = None
    event: tuple[str, ...] | None = None


@dataclass(slots=True)
class _Descriptor:
    run_uid: str
    is_baseline: bool
    external: frozenset[str]
    owners: dict[str, str]
    units: dict[str, str]
    configuration: dict[str, Values]
    """For each object; of this stream."""


@dataclass(slots=True)
class _Run:
    start: Values
    baseline: Values = field(default_factory=Values)
    units: dict[str, str] = field(default_factory=dict)
    """Those of the baseline."""
    descriptors: list[str] = field(default_factory=list)


class FrameMetadata:
    """Takes the documents of runs in, gives the metadata of frames out.

    Runs may be interleaved; what a run needed is forgotten when it stops, and that of the oldest one when too many
    never stop.
    """

    def __init__(self, selection: MetadataSelection | None = None) -> None:
        self._selection = selection or MetadataSelection()
        self._runs: dict[str, _Run] = {}
        self._descriptors: dict[str, _Descriptor] = {}

    def feed(self, name: str, document: Document) -> None:
        """Take one document in.

        Raises
        ------
        KeyError, ValueError, TypeError, AttributeError
            if the document does not follow the event model.

        """
        match name:
            case "start":
                self._begin(document)
            case "descriptor":
                self._describe(document)
            case "event":
                self._read_baseline(document["descriptor"], document["data"])
            case "event_page":
                for data in _rows(document["data"]):
                    self._read_baseline(document["descriptor"], data)
            case "stop":
                self._forget(document["run_start"])

    def run_of(self, descriptor: str) -> str | None:
        """Return the run of a descriptor, None if it is not known."""
        known = self._descriptors.get(descriptor)
        return known.run_uid if known else None

    def of(self, frame: Frame) -> dict[str, Any]:
        """Return the metadata of a frame, fit for JSON and for the server's cap."""
        described = self._descriptors.get(frame.descriptor)
        values, own = Values(), _own_facts(frame)
        if run := self._runs.get(frame.run_uid):
            values.lay_over(run.start)
        if described is not None:
            for configuration in self._configurations(described, frame.data_key):
                values.lay_over(configuration)
        if run:
            values.lay_over(run.baseline)
        if frame.event is not None:
            read = self._event_values(frame.event, described)
            values.lay_over(read)
            own["timestamps"] = _timestamps(frame.event, read.fit)
        if described is not None:
            own.update(_exposure(described, frame.data_key, values.fit))
            units = {**(run.units if run else {}), **described.units}
            own["units"] = {name: units[name] for name in values.fit if name in units}
            if not own["units"]:
                del own["units"]
        return _bounded(own, values)

    def _begin(self, start: Document) -> None:
        values = Values(OWN_KEYS)
        patterns = self._selection.start
        for key in _chosen(start, (*START_KEYS, *_named_by_recipe(start)) if patterns is None else patterns):
            values.take(key, start[key], asked_for=patterns is not None)
        self._runs[start["uid"]] = _Run(values)
        while len(self._runs) > _KEPT_RUNS:
            self._forget(next(iter(self._runs)))

    def _describe(self, document: Document) -> None:
        keys: Mapping[str, Document] = document["data_keys"]
        self._descriptors[document["uid"]] = _Descriptor(
            run_uid=document["run_start"],
            is_baseline=document.get("name") == _BASELINE,
            external=frozenset(key for key, described in keys.items() if described.get("external")),
            owners={key: described["object_name"] for key, described in keys.items() if "object_name" in described},
            units=_units(document),
            configuration={
                owner: self._configured(configuration.get("data", {}))
                for owner, configuration in document.get("configuration", {}).items()
            },
        )
        if run := self._runs.get(document["run_start"]):
            run.descriptors.append(document["uid"])
        else:
            self._descriptors.pop(document["uid"])

    def _configured(self, data: Mapping[str, Any]) -> Values:
        return _taken(data, self._selection.configuration)

    def _configurations(self, described: _Descriptor, data_key: str) -> Iterator[Values]:
        """Yield what holds for an image; its own object's last, so that nobody else's hides it."""
        owner = described.owners.get(data_key, "")
        if self._selection.configuration is not None:
            yield from (values for name, values in described.configuration.items() if name != owner)
        if owner in described.configuration:
            yield described.configuration[owner]

    def _read_baseline(self, descriptor: str, data: Mapping[str, Any]) -> None:
        described = self._descriptors.get(descriptor)
        run = self._runs.get(described.run_uid) if described else None
        if described is not None and run is not None and described.is_baseline:
            internal = {key: value for key, value in data.items() if key not in described.external}
            run.baseline.lay_over(_taken(internal, self._selection.baseline))
            run.units.update(described.units)

    def _event_values(self, event: Document, described: _Descriptor | None) -> Values:
        external = described.external if described else frozenset()
        filled = event.get("filled", {})
        internal = {key: value for key, value in event["data"].items() if key not in external and key not in filled}
        return _taken(internal, self._selection.event)

    def _forget(self, run_uid: str) -> None:
        if run := self._runs.pop(run_uid, None):
            for uid in run.descriptors:
                self._descriptors.pop(uid, None)


def _named_by_recipe(start: Document) -> tuple[str, ...]:
    """Return the keys that the recipe of a run names for ESPERANTO headers."""
    conversion = start.get("conversion")
    wanted = esperanto_of(conversion.get("recipe")) if isinstance(conversion, Mapping) else None
    return tuple(wanted.fields) if wanted is not None else ()


def _own_facts(frame: Frame) -> dict[str, Any]:
    facts: dict[str, Any] = {"seq_num": frame.seq_num, "number": frame.number}
    if frame.shape is not None:
        facts["shape"] = [int(length) for length in frame.shape]
    if frame.event is not None:
        stamp = Values()
        stamp.take("time", frame.event.get("time"))
        facts.update(stamp.fit)
    return facts


def _timestamps(event: Document, names: Iterable[str]) -> dict[str, Any]:
    stamps = event.get("timestamps", {})
    values = Values()
    for name in names:
        if name in stamps:
            values.take(name, stamps[name])
    return values.fit


def _exposure(described: _Descriptor, data_key: str, values: Mapping[str, Any]) -> dict[str, float]:
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


def _taken(data: Mapping[str, Any], patterns: tuple[str, ...] | None) -> Values:
    values = Values(OWN_KEYS)
    for key in data if patterns is None else _chosen(data, patterns):
        values.take(key, data[key], asked_for=patterns is not None)
    return values


def _chosen(names: Iterable[str], patterns: tuple[str, ...]) -> list[str]:
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _units(document: Document) -> dict[str, str]:
    keys = dict(document["data_keys"])
    for configuration in document.get("configuration", {}).values():
        keys.update(configuration.get("data_keys", {}))
    return {key: described["units"] for key, described in keys.items() if described.get("units")}


def _rows(columns: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))
