"""What resource, stream resource and datum documents have announced.

They may come before their run is known, and a detector that is staged around several runs announces its files once. So
this store is shared; a run's datums are forgotten with it, its resources after many others.
"""

from array import array
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

from petif_bluesky.documents.file_series import FileSeries, PassedOver

Document = Mapping[str, Any]
Files = FileSeries | PassedOver

_KEPT = 1000
"""Resources that belong to no open run."""
_FAR = 2**62
_DIGITS = 10


@dataclass(slots=True)
class _Resource:
    run_uid: str | None = None
    """The run that announced it, or the last one that used it."""
    files: Files | None = None
    points: "array[int]" = field(default_factory=lambda: array("q"))
    """Of the datums that event-model has numbered, `uid/0`, `uid/1`, ...: a night has many."""


class Assets:
    """Resources by their uids, and datums by their ids."""

    def __init__(self) -> None:
        self._resources: dict[str, _Resource] = {}
        self._datums: dict[str, tuple[str, int]] = {}
        """Resource and point of the datums that are not numbered."""

    def add_resource(self, uid: str, files: Files, run_uid: str | None) -> None:
        """Keep a resource."""
        resource = self._resources.setdefault(uid, _Resource())
        resource.files = files
        resource.run_uid = run_uid or resource.run_uid

    def add_datum(self, datum_id: str, resource_uid: str, point: int) -> None:
        """Keep a datum; its resource may come later."""
        resource = self._resources.get(resource_uid) or self._resources.setdefault(resource_uid, _Resource())
        number = _number_in(datum_id, resource_uid)
        if number is not None and number <= len(resource.points) and abs(point) < _FAR:
            resource.points[number : number + 1] = array("q", [point])
            self._datums.pop(datum_id, None)
        else:
            self._datums[datum_id] = (resource_uid, point)

    def files(self, resource_uid: str, run_uid: str) -> Files | None:
        """Return what a resource that a run uses stands for, None if it was not announced yet."""
        resource = self._resources.get(resource_uid)
        if resource is None:
            return None
        resource.run_uid = run_uid
        return resource.files

    def datum(self, datum_id: str, run_uid: str) -> tuple[Files, int] | None:
        """Return resource and point of a datum that a run uses, None if they are not known yet."""
        resource_uid, point = self._datums.get(datum_id) or self._numbered(datum_id)
        files = self.files(resource_uid, run_uid)
        return None if files is None else (files, point)

    def end_run(self, run_uid: str, still_open: Container[str | None]) -> None:
        """Forget the datums of a run that has ended, and the oldest resources of runs that are not open any more."""
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
    """Return the number in an id as event-model makes it, None for every other id."""
    head, _, tail = datum_id.rpartition("/")
    number = int(tail) if head == resource_uid and tail.isascii() and tail.isdecimal() and len(tail) < _DIGITS else None
    return number if str(number) == tail else None
