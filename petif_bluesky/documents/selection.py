"""Which frames of a run are taken."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from tango_server.conversion.files.path_map import PathMap

Names = tuple[str, ...]

OWN_STREAMS = ("conversion", "converted", "converted-*", "unconverted")
"""Of the conversion itself, as patterns; the images in them are outputs."""


@dataclass(frozen=True)
class FrameSelection:
    """Which frames are taken; by default every TIFF image of a run, once.

    Names may be patterns, as `pe*`. A detector is meant by its own name or by that of its data key; devices may be
    given instead of their names.

    Parameters
    ----------
    detectors: those that are taken, None for all
    streams: those that are taken, None for all
    without_detectors, without_streams: those that are left out
    name_keys: the data keys (strings) in which a detector tells the name of the file that it wrote
    sequences: for each spec of resources that number their files `path_0`, `path_1`: how these names end
    paths: what the documents' paths are on the conversion host, where the server's own `path_maps` don't tell

    """

    detectors: Names | None = None
    streams: Names | None = None
    without_detectors: Names = ()
    without_streams: Names = ()
    name_keys: Names = ("*full_file_name",)
    sequences: Mapping[str, str] = field(default_factory=lambda: {"AD_TIFF": "tif"})
    paths: PathMap = field(default_factory=PathMap)

    def __post_init__(self) -> None:
        for name in ("detectors", "streams", "without_detectors", "without_streams", "name_keys"):
            object.__setattr__(self, name, _names(getattr(self, name)))

    def takes_stream(self, name: str) -> bool:
        """Tell whether frames of a stream are taken; never those of the conversion itself."""
        return _among(self.streams, name) and not _matches((*self.without_streams, *OWN_STREAMS), name)

    def takes_key(self, data_key: str, owner: str) -> bool:
        """Tell whether frames of a data key of the detector `owner` are taken."""
        taken = _among(self.detectors, data_key) or _among(self.detectors, owner)
        return taken and not any(_matches(self.without_detectors, name) for name in (data_key, owner))

    def is_name_key(self, data_key: str) -> bool:
        """Tell whether a detector tells the name of its file in a data key."""
        return _matches(self.name_keys, data_key)

    def here(self, path: str) -> str:
        """Return what a path of the documents is called on the conversion host; raise `UnfitPathError`."""
        if not self.paths.rules:
            return path
        return self.paths.translate(path, windows_host=True)  # a path that no prefix fits is for the server to judge


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
