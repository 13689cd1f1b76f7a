"""Which frames of a run to convert."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from tango_server.conversion.files.path_map import PathMap

Names = tuple[str, ...]

_OWN_STREAMS = tuple(
    f"{stream}{rest}" for stream in ("conversion", "converted", "unconverted") for rest in ("", "_*", "-*")
)
"""Streams of the conversion itself, as patterns; their images are outputs."""


@dataclass(frozen=True)
class FrameSelection:
    """Which frames to convert; by default every image of a run in TIFF, HDF5, CBF, EDF and MarCCD files, once.

    Names may be patterns such as `pe*`. A detector can be given by its name, by that of a data key, or as a device.

    Parameters
    ----------
    detectors: detectors to include, None for all
    streams: streams to include, None for all
    without_detectors, without_streams: detectors and streams to exclude
    name_keys: data keys (strings) in which a detector reports the name of the file it wrote
    dark_streams: streams whose images are dark, also if they are excluded above: `dark` is that of bluesky-darkframes
    dark_detectors: detectors or data keys whose images are dark; a mapping has the detector whose darks they are
    sequences: for each resource spec that numbers its files `path_0`, `path_1`, the file name extension
    paths: maps paths in documents to paths on the conversion host, if the server's own `path_maps` do not

    """

    detectors: Names | None = None
    streams: Names | None = None
    without_detectors: Names = ()
    without_streams: Names = ()
    name_keys: Names = ("*full_file_name",)
    dark_streams: Names = ("dark",)
    dark_detectors: Names | Mapping[str, str] = ()
    sequences: Mapping[str, str] = field(default_factory=lambda: {"AD_TIFF": "tif"})
    paths: PathMap = field(default_factory=PathMap)

    def __post_init__(self) -> None:
        for name in ("detectors", "streams", "without_detectors", "without_streams", "name_keys", "dark_streams"):
            object.__setattr__(self, name, _names(getattr(self, name)))
        if not isinstance(self.dark_detectors, Mapping):
            object.__setattr__(self, "dark_detectors", _names(self.dark_detectors))

    def takes_stream(self, name: str) -> bool:
        """Return whether frames of a stream are selected; those of the conversion itself never are."""
        return _among(self.streams, name) and not (_matches(self.without_streams, name) or is_own_stream(name))

    def takes_key(self, data_key: str, owner: str) -> bool:
        """Return whether frames of a data key of detector `owner` are selected."""
        taken = _among(self.detectors, data_key) or _among(self.detectors, owner)
        return taken and not any(_matches(self.without_detectors, name) for name in (data_key, owner))

    def takes(self, stream: str, data_key: str, owner: str) -> bool:
        """Return whether frames of a data key of detector `owner` are selected in a stream."""
        return self.takes_stream(stream) and self.takes_key(data_key, owner)

    def is_dark(self, stream: str, data_key: str, owner: str) -> bool:
        """Return whether the images of a data key of detector `owner` are dark in every run."""
        if is_own_stream(stream):
            return False
        return _matches(self.dark_streams, stream) or any(
            _matches(tuple(self.dark_detectors), name) for name in (data_key, owner)
        )

    def is_dark_stream(self, stream: str) -> bool:
        """Return whether all images of a stream are dark."""
        return _matches(self.dark_streams, stream) and not is_own_stream(stream)

    def detector_of_dark(self, data_key: str, owner: str) -> str:
        """Return the detector whose darks are those of a data key of `owner`."""
        pairs = self.dark_detectors.items() if isinstance(self.dark_detectors, Mapping) else ()
        return next(
            (of for pattern, of in pairs if _matches((pattern,), data_key) or _matches((pattern,), owner)), owner
        )

    def is_name_key(self, data_key: str) -> bool:
        """Return whether a detector reports its file name in a data key."""
        return _matches(self.name_keys, data_key)

    def here(self, path: str) -> str:
        """Return the path on the conversion host for a path in documents; raise `UnfitPathError`."""
        if not self.paths.rules:
            return path
        return self.paths.translate(path, windows_host=True)  # if no prefix matches, the server decides


def is_own_stream(name: str) -> bool:
    """Return whether a stream is one of the conversion itself."""
    return _matches(_OWN_STREAMS, name)


def _names(given: Iterable[Any] | None) -> Names | None:
    if given is None:
        return None
    if isinstance(given, str) or not isinstance(given, Iterable):
        given = (given,)
    return tuple(str(getattr(name, "name", name)) for name in given)


def _among(patterns: Names | None, name: str) -> bool:
    return patterns is None or _matches(patterns, name)


def _matches(patterns: Names, name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
