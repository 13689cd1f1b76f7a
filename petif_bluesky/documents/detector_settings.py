"""The settings with which a detector takes an image, and that its dark must share, as far as documents have them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from petif_bluesky.documents.descriptors import owners_in
from petif_bluesky.documents.json_values import UnfitError, plain

Document = Mapping[str, Any]
Gain = float | str

_EXPOSURES = ("exposure_time", "acquire_time")
_ONE_EXPOSURE = ("acquire_time", "exposure_time")
"""In areaDetector, `acquire_time` is that of one of the exposures that are summed."""
_GAINS = ("gain", "cameragain")
_SECONDS = {"s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0}
_EXPOSURE_TOLERANCE = 0.01
_GAIN_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class DetectorSettings:
    """The settings of one image.

    `data_key` is "" for files that are named by a string, or by a separate dark detector. `shape` is (rows, columns).
    `exposure_time` is that of one exposure, in s. `gains` are the readings of the detector that are called gain, by key
    without the name of the detector.
    """

    detector: str
    data_key: str = ""
    shape: tuple[int, int] | None = None
    exposure_time: float | None = None
    gains: Mapping[str, Gain] = field(default_factory=dict)

    @property
    def gain(self) -> float | None:
        """The gain, None if it is unknown, not a number, or if there are several."""
        values = set(self.gains.values())
        (value,) = values if len(values) == 1 else (None,)
        return value if isinstance(value, int | float) else None

    def is_of_same_image(self, other: "DetectorSettings") -> bool:
        """Return whether both are of the same image of the same detector."""
        mine, its = self.data_key, other.data_key
        return self.detector == other.detector and (mine == its or not mine or not its)

    def fits(self, dark: "DetectorSettings") -> bool:
        """Return whether a dark fits this frame of the same image in all that is known of both."""
        return (
            (self.shape == dark.shape or not self.shape or not dark.shape)
            and _same_exposure(self.exposure_time, dark.exposure_time)
            and all(_same_gain(gain, dark.gains[key]) for key, gain in self.gains.items() if key in dark.gains)
        )

    def differences(self, dark: "DetectorSettings") -> list[str]:
        """Return in words how a dark that does not fit differs from this frame."""
        found = []
        if dark.shape and self.shape and self.shape != dark.shape:
            found.append(f"its shape is {_size(dark.shape)}, the frame's {_size(self.shape)}")
        if not _same_exposure(self.exposure_time, dark.exposure_time):
            found.append(f"its exposure time is {dark.exposure_time:g} s, the frame's {self.exposure_time:g} s")
        found += [
            f"its {key} is {dark.gains[key]}, the frame's {self.gains[key]}"
            for key in sorted(self.gains.keys() & dark.gains.keys())
            if not _same_gain(self.gains[key], dark.gains[key])
        ]
        return found

    def not_compared(self, dark: "DetectorSettings") -> list[str]:
        """Return what must be equal, but is not known of both."""
        known = {
            "shape": self.shape and dark.shape,
            "exposure time": self.exposure_time is not None and dark.exposure_time is not None,
            "gain": self.gains.keys() & dark.gains.keys(),
        }
        return [name for name, compared in known.items() if not compared]


@dataclass(frozen=True, slots=True)
class _Described:
    owners: Mapping[str, str]
    units: Mapping[str, str]
    configuration: Mapping[str, Mapping[str, Any]]
    """By object: its configuration."""


class SettingsReader:
    """Reads the settings of images from the descriptors and events of one run."""

    def __init__(self) -> None:
        self._described: dict[str, _Described] = {}

    def describe(self, document: Document) -> None:
        """Process a descriptor."""
        self._described[document["uid"]] = _Described(
            owners_in(document),
            units_in(document),
            {
                owner: _relevant(owner, configuration.get("data", {}))
                for owner, configuration in document.get("configuration", {}).items()
            },
        )

    def of(
        self, descriptor: str, data_key: str, shape: tuple[int, int] | None, event: Document | None
    ) -> tuple[DetectorSettings, bool]:
        """Return the settings of an image, and whether some are from the configuration in the descriptor."""
        described = self._described[descriptor]
        owner = described.owners[data_key]
        configured = described.configuration.get(owner, {})
        read: dict[str, Any] = {}
        if event is not None:
            own = {key: value for key, value in event["data"].items() if described.owners.get(key) in {owner, key}}
            read = _relevant(owner, own)
        values = {**configured, **read}
        gains = {key: value for key, value in _gains(owner, values) if value != ""}
        exposure_time = exposure_time_of(owner, values, described.units, _ONE_EXPOSURE)
        settings = DetectorSettings(owner, data_key, shape, exposure_time, gains)
        return settings, not configured.keys() <= read.keys()


def exposure_time_of(
    owner: str, values: Mapping[str, Any], units: Mapping[str, str], names: Sequence[str] = _EXPOSURES
) -> float | None:
    """Return the exposure time among the readings of an object, in s; None if there is none in a known unit.

    `names` are the ends of their keys; the first one that exists counts.
    """
    for ending in names:
        for key, value in values.items():
            fits = _is_of(owner, key) and key.endswith(ending) and isinstance(value, int | float)
            factor = _SECONDS.get(units.get(key, "s"))
            if fits and factor is not None:
                return float(value) * factor
    return None


def units_in(document: Document) -> dict[str, str]:
    """Return the units of the data and the configuration in a descriptor, by key."""
    keys = dict(document["data_keys"])
    for configuration in document.get("configuration", {}).values():
        keys.update(configuration.get("data_keys", {}))
    return {key: described["units"] for key, described in keys.items() if described.get("units")}


def _relevant(owner: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the exposure times and gains among the readings of an object, as plain values."""
    found = {}
    for key, value in values.items():
        if _is_of(owner, key) and (key.endswith(_EXPOSURES) or _last_part(key) in _GAINS):
            try:
                found[key] = plain(value)
            except UnfitError:
                continue
    return found


def _gains(owner: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Gain]]:
    for key, value in values.items():
        if _is_of(owner, key) and _last_part(key) in _GAINS and not isinstance(value, bool):
            yield key[len(owner) + 1 :], value


def _is_of(owner: str, key: str) -> bool:
    """Return whether a key is of an object, by the names of ophyd or ophyd-async."""
    return bool(owner) and key.startswith((f"{owner}_", f"{owner}-"))


def _last_part(key: str) -> str:
    """Return the last part of a key, in lower case.

    >>> [_last_part(key) for key in ("pe_cam_gain", "pe-drv-cameraGain", "pe_camera_gain")]
    ['gain', 'cameragain', 'gain']
    """
    return key.replace("-", "_").rpartition("_")[2].lower()


def _same_exposure(one: float | None, other: float | None) -> bool:
    return one is None or other is None or math.isclose(one, other, rel_tol=_EXPOSURE_TOLERANCE)


def _same_gain(one: Gain, other: Gain) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return math.isclose(one, other, rel_tol=_GAIN_TOLERANCE)


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]}"
