"""Find the images in a descriptor: the external image keys, and the keys that name their files."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from petif_bluesky.documents.selection import FrameSelection

Document = Mapping[str, Any]

_IN_STREAMS = "STREAM"


@dataclass(frozen=True, slots=True)
class ImageKey:
    """A data key with an external image."""

    name: str
    described: tuple[Any, ...]
    """Its shape: [frames, rows, columns], or [rows, columns]."""
    in_stream: bool
    """Whether its frames come in stream datums rather than datums."""

    @property
    def shape(self) -> tuple[int, int] | None:
        """(rows, columns) of one frame, None if the descriptor does not have them."""
        sides = self.described[1:3] if len(self.described) > 2 else self.described  # noqa: PLR2004 - frames first
        whole = all(hasattr(side, "__index__") and side > 0 for side in sides)
        return (int(sides[0]), int(sides[1])) if len(sides) == 2 and whole else None  # noqa: PLR2004


@dataclass(frozen=True, slots=True)
class Detector:
    """The image keys and file-name keys of one object in a stream."""

    name: str
    images: tuple[ImageKey, ...]
    name_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Descriptor:
    """The parts of an event descriptor that concern frames."""

    uid: str
    run_uid: str
    stream: str
    data_keys: frozenset[str]
    detectors: tuple[Detector, ...]
    has_events_of_its_own: bool
    """Whether its events have data besides that in stream datums, so that they are worth waiting for."""

    def image(self, data_key: str) -> tuple[Detector, ImageKey] | None:
        """Return detector and image of a data key, or None if its frames are not selected."""
        for detector in self.detectors:
            for image in detector.images:
                if image.name == data_key:
                    return detector, image
        return None


def descriptor_of(document: Document, selection: FrameSelection) -> Descriptor:
    """Return the selected images of a descriptor, copied in case the document is changed later."""
    keys: Mapping[str, Document] = document["data_keys"]
    stream = document.get("name") or "primary"
    owners = owners_in(document)
    grouped: dict[str, list[str]] = {}
    for key in keys:
        if selection.takes(stream, key, owners[key]) or selection.is_dark(stream, key, owners[key]):
            grouped.setdefault(owners[key], []).append(key)
    detectors = [_detector(owner, keys, names, selection) for owner, names in grouped.items()]
    return Descriptor(
        uid=document["uid"],
        run_uid=document["run_start"],
        stream=stream,
        data_keys=frozenset(keys),
        detectors=tuple(detector for detector in detectors if detector.images or detector.name_keys),
        has_events_of_its_own=any(not _is_in_stream(described) for described in keys.values()),
    )


def owners_in(document: Document) -> dict[str, str]:
    """Return the object of each data key; if it is not given, the part of the key before the first underscore."""
    listed = {key: owner for owner, keys in (document.get("object_keys") or {}).items() for key in keys}
    keys: Mapping[str, Document] = document["data_keys"]
    return {
        key: described.get("object_name") or listed.get(key) or key.split("_", 1)[0] for key, described in keys.items()
    }


def _detector(owner: str, keys: Mapping[str, Document], names: list[str], selection: FrameSelection) -> Detector:
    images = [name for name in names if keys[name].get("external") and keys[name]["dtype"] == "array"]
    reported = [name for name in names if keys[name]["dtype"] == "string" and selection.is_name_key(name)]
    return Detector(
        name=owner,
        images=tuple(
            ImageKey(name, tuple(keys[name].get("shape") or ()), _is_in_stream(keys[name])) for name in images
        ),
        name_keys=tuple(name for name in reported if not keys[name].get("external")),
    )


def _is_in_stream(described: Document) -> bool:
    return str(described.get("external", "")).startswith(_IN_STREAMS)
