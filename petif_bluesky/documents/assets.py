"""Store resources, stream resources and datums.

They may arrive before their run is known, and a detector staged around several runs announces its files only once. So
all runs share this store. Datums are dropped when their run ends, resources only when many newer ones have come.
"""

from array import array
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

from petif_bluesky.documents.file_series import DatumPoint, FrameFiles, PassedOver

Document = Mapping[str, Any]
Files = FrameFiles | PassedOver

_KEPT = 1000
"""Maximum number of stored resources that belong to no open run."""
_FAR = 2**62
_DIGITS = 10


@dataclass(slots=True)
class _Resource:
    run_uid: str | None = None
    """The run that announced the resource, or the last one that used it."""
    files: Files | None = None
    points: "array[int]" = field(default_factory=lambda: array("q"))
    """Points of the datums numbered by event-model (`uid/0`, `uid/1`, ...); compact, because there are many."""


class Assets:
    """Resources by uid, and datums by id."""

    def __init__(self) -> None:
        self._resources: dict[str, _Resource] = {}
        self._datums: dict[str, tuple[str, DatumPoint]] = {}
        """Resource and point of other datums."""

    def add_resource(self, uid: str, files: Files, run_uid: str | None) -> None:
        """Store a resource."""
        resource = self._resources.setdefault(uid, _Resource())
        resource.files = files
        resource.run_uid = run_uid or resource.run_uid

    def add_datum(self, datum_id: str, resource_uid: str, point: DatumPoint) -> None:
        """Store a datum; its resource may come later."""
        resource = self._resources.get(resource_uid) or self._resources.setdefault(resource_uid, _Resource())
        number = _number_in(datum_id, resource_uid)
        if number is not None and number <= len(resource.points) and not isinstance(point, tuple) and abs(point) < _FAR:
            resource.points[number : number + 1] = array("q", [point])
            self._datums.pop(datum_id, None)
        else:
            self._datums[datum_id] = (resource_uid, point)

    def files(self, resource_uid: str, run_uid: str) -> Files | None:
        """Return the files of a resource that a run uses, or None if it has not been announced yet."""
        resource = self._resources.get(resource_uid)
        if resource is None:
            return None
        resource.run_uid = run_uid
        return resource.files

    def datum(self, datum_id: str, run_uid: str) -> tuple[Files, DatumPoint] | None:
        """Return files and point of a datum that a run uses, or None if not known yet."""
        resource_uid, point = self._datums.get(datum_id) or self._numbered(datum_id)
        files = self.files(resource_uid, run_uid)
        return None if files is None else (files, point)

    def end_run(self, run_uid: str, still_open: Container[str | None]) -> None:
        """Drop the datums of a run that has ended, and the oldest resources of closed runs."""
        for uid in [uid for uid, resource in self._resources.items() if resource.run_uid == run_uid]:
            del self._resources[uid].points[:]
            self._resources[uid] = self._resources.pop(uid)
        left = [uid for uid, resource in self._resources.items() if resource.run_uid not in still_open]
        for uid in left[:-_KEPT]:
            del self._resources[uid]
        self._datums = {
            datum_id: (uid, point)
            for datum_id, (uid, point) in self._datums.items()
            if uid in self._resources and self._resources[uid].run_uid != run_uid
        }

    def _numbered(self, datum_id: str) -> tuple[str, int]:
        resource_uid = datum_id.rpartition("/")[0]
        resource, number = self._resources.get(resource_uid), _number_in(datum_id, resource_uid)
        if resource is None or number is None or number >= len(resource.points):
            return "", 0
        return resource_uid, resource.points[number]

    def __len__(self) -> int:
        return len(self._resources) + len(self._datums) + sum(len(each.points) for each in self._resources.values())


def _number_in(datum_id: str, resource_uid: str) -> int | None:
    """Return the number in a datum id of event-model's form, None for other ids."""
    head, _, tail = datum_id.rpartition("/")
    number = int(tail) if head == resource_uid and tail.isascii() and tail.isdecimal() and len(tail) < _DIGITS else None
    return number if str(number) == tail else None
