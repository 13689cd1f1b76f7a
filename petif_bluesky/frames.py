"""From run documents to the files of frames. Pure: no file is looked at.

Taken are the images that a detector describes by resource and datum documents with a file name template (`AD_TIFF`,
the way of areaDetector's TIFF plugin and of the simulated detector). Where the detector also reports the name of the
one file it wrote, that name is trusted: a program that finds its name taken writes to another, and a template can't
know.
"""

import ntpath
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Document = Mapping[str, Any]

_TIFF_SPECS = {"AD_TIFF"}
_NAME_READ_BACK = "full_file_name"


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a run: the path as the detector names it, and the event that it belongs to."""

    path: str
    run_uid: str
    stream: str
    seq_num: int
    data_key: str


@dataclass(slots=True)
class _Descriptor:
    run_uid: str
    stream: str
    images: dict[str, str | None]
    """External image keys; for each the key that holds the name read back, if there is one."""


@dataclass(frozen=True, slots=True)
class _Resource:
    """What a resource document says of file names. Copied, because other subscribers may change their document."""

    spec: str
    folder: str
    template: str
    filename: str
    count: int

    def predicted(self, point: int) -> list[str]:
        """Return the names that areaDetector's template gives: `template % (folder, filename, index)`."""
        indices = range(point * self.count, (point + 1) * self.count)
        return [self.template % (self.folder, self.filename, index) for index in indices]


@dataclass(slots=True)
class _Run:
    descriptors: list[str] = field(default_factory=list)
    resources: list[str] = field(default_factory=list)


class FrameFinder:
    """Takes documents in, gives frames out. Runs may be interleaved; what a run needed is forgotten when it stops."""

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}
        self._descriptors: dict[str, _Descriptor] = {}
        self._resources: dict[str, _Resource | None] = {}
        self._datums: dict[str, tuple[str, int]] = {}

    def feed(self, name: str, document: Document) -> list[Frame]:
        """Return the frames that this document completes.

        Raises
        ------
        KeyError, ValueError, TypeError
            if the document does not follow the event model.

        """
        match name:
            case "start":
                self._runs[document["uid"]] = _Run()
            case "descriptor":
                self._descriptor(document)
            case "resource":
                self._resource(document)
            case "datum":
                self._datum(document)
            case "event":
                return list(self._event(document))
            case "stop":
                self._forget(document["run_start"])
        return []

    def _descriptor(self, document: Document) -> None:
        keys: Mapping[str, Document] = document["data_keys"]
        self._descriptors[document["uid"]] = _Descriptor(
            run_uid=document["run_start"],
            stream=document.get("name", "primary"),
            images={
                key: _name_key(keys, key)
                for key, described in keys.items()
                if described.get("external") and described["dtype"] == "array"
            },
        )
        if run := self._runs.get(document["run_start"]):
            run.descriptors.append(document["uid"])

    def _resource(self, document: Document) -> None:
        self._resources[document["uid"]] = _parsed(document) if document["spec"] in _TIFF_SPECS else None
        if run := self._runs.get(document.get("run_start", "")):
            run.resources.append(document["uid"])

    def _datum(self, document: Document) -> None:
        if self._resources[document["resource"]] is not None:
            point = int(document["datum_kwargs"]["point_number"])
            self._datums[document["datum_id"]] = (document["resource"], point)

    def _event(self, event: Document) -> Iterator[Frame]:
        descriptor = self._descriptors[event["descriptor"]]
        for data_key, name_key in descriptor.images.items():
            if data_key not in event["data"]:
                continue
            for path in self._paths(event["data"], data_key, name_key):
                yield Frame(path, descriptor.run_uid, descriptor.stream, event["seq_num"], data_key)

    def _paths(self, data: Mapping[str, Any], data_key: str, name_key: str | None) -> list[str]:
        resource_uid, point = self._datums.pop(data[data_key], ("", 0))
        resource = self._resources.get(resource_uid)
        if resource is None:  # an image in another format
            return []
        if resource.count == 1 and name_key is not None and data.get(name_key):
            return [str(data[name_key])]
        return resource.predicted(point)

    def _forget(self, run_uid: str) -> None:
        run = self._runs.pop(run_uid, _Run())
        for uid in run.descriptors:
            self._descriptors.pop(uid, None)
        for uid in run.resources:
            self._resources.pop(uid, None)
            for datum_id in [key for key, (owner, _) in self._datums.items() if owner == uid]:
                del self._datums[datum_id]


def _name_key(keys: Mapping[str, Document], image_key: str) -> str | None:
    """Return the key in which the object of `image_key` reports the name of the file it wrote."""
    owner = keys[image_key].get("object_name")
    for key, described in keys.items():
        same_owner = owner is not None and described.get("object_name") == owner
        if same_owner and described["dtype"] == "string" and key.endswith(_NAME_READ_BACK):
            return key
    return None


def _parsed(document: Document) -> _Resource:
    join = ntpath.join if document.get("path_semantics") == "windows" else posixpath.join
    settings = document["resource_kwargs"]
    return _Resource(
        spec=document["spec"],
        folder=join(document.get("root", ""), document["resource_path"], ""),
        template=settings["template"],
        filename=settings["filename"],
        count=int(settings.get("frame_per_point", 1)),
    )
