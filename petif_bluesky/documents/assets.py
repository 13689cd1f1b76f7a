"""Resources, datums and stream resources, as long as they are of use."""

from array import array
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from petif_bluesky.documents.file_series import PassedOver, Series
from petif_bluesky.documents.stream_resources import StreamFiles

Document = Mapping[str, Any]
Files = Series | StreamFiles | PassedOver

_KEPT = 1000
"""Resources that belong to no open run; a detector that is staged around several runs announces its files once."""

_FAR = 2**62
_DIGITS = 10


@dataclass(slots=True)
class _Resource:
    files: Files | None = None
    points: "array[int]" = field(default_factory=lambda: array("q"))
    """Of the datums that event-model has numbered, `uid/0`, `uid/1`, ...: a night has many."""
    datums: list[str] = field(default_factory=list)
    """The ids of all others."""


class Assets:
    """Of all open runs, and the last resources of those that are over."""

    def __init__(self) -> None:
        self._resources: dict[str, _Resource] = {}
        self._datums: dict[str, tuple[str, int]] = {}
        self._of_runs: dict[str, dict[str, None]] = {}
        self._homeless: OrderedDict[str, None] = OrderedDict()

    def add_resource(self, uid: str, files: Files, run_uid: str | None) -> None:
        """Keep a resource, with its run if it tells one that is open."""
        self._resources.setdefault(uid, _Resource()).files = files
        if run_uid in self._of_runs:
            self._homeless.pop(uid, None)
            self._of_runs[run_uid][uid] = None
        else:
            self._put_aside(uid)

    def add_datum(self, datum_id: str, resource_uid: str, point: int) -> None:
        """Keep a datum, until the run is over that its resource belongs to."""
        if resource_uid not in self._resources:
            self._resources[resource_uid] = _Resource()
            self._put_aside(resource_uid)
        resource, number = self._resources[resource_uid], _number_in(datum_id, resource_uid)
        if number is not None and number <= len(resource.points) and abs(point) < _FAR:
            resource.points[number : number + 1] = array("q", [point])
            self._datums.pop(datum_id, None)
            return
        if datum_id not in self._datums:
            resource.datums.append(datum_id)
        self._datums[datum_id] = (resource_uid, point)

    def files(self, resource_uid: str) -> Files | None:
        """Return what a resource stands for, None if it was not announced yet."""
        resource = self._resources.get(resource_uid)
        return resource.files if resource else None

    def datum(self, datum_id: str, run_uid: str) -> tuple[Files, int] | None:
        """Return resource and point of a datum that a run uses, None if they are not known yet."""
        resource_uid, point = self._datums.get(datum_id) or self._numbered(datum_id)
        files = self.files(resource_uid)
        if files is None:
            return None
        if resource_uid in self._homeless and run_uid in self._of_runs:
            del self._homeless[resource_uid]
            self._of_runs[run_uid][resource_uid] = None
        return files, point

    def _numbered(self, datum_id: str) -> tuple[str, int]:
        resource_uid = datum_id.rpartition("/")[0]
        resource, number = self._resources.get(resource_uid), _number_in(datum_id, resource_uid)
        if resource is None or number is None or number >= len(resource.points):
            return "", 0
        return resource_uid, resource.points[number]

    def open(self, run_uid: str) -> None:
        """Keep what belongs to a run from now on."""
        self._of_runs.setdefault(run_uid, {})

    def close(self, run_uid: str) -> None:
        """Forget the datums of a run, and its resources after many others."""
        for uid in self._of_runs.pop(run_uid, ()):
            if uid in self._resources:  # unless it belonged to two runs, and went with the other
                self._forget_datums(uid)
                self._put_aside(uid)

    def __len__(self) -> int:
        return len(self._resources) + len(self._datums) + sum(len(each.points) for each in self._resources.values())

    def _put_aside(self, uid: str) -> None:
        self._homeless[uid] = None
        self._homeless.move_to_end(uid)
        while len(self._homeless) > _KEPT:
            oldest, _ = self._homeless.popitem(last=False)
            self._forget_datums(oldest)
            del self._resources[oldest]

    def _forget_datums(self, uid: str) -> None:
        resource = self._resources[uid]
        for datum_id in resource.datums:
            self._datums.pop(datum_id, None)
        resource.datums.clear()
        del resource.points[:]


def _number_in(datum_id: str, resource_uid: str) -> int | None:
    """Return the number in an id as event-model makes it, None for every other id."""
    head, _, tail = datum_id.rpartition("/")
    number = int(tail) if head == resource_uid and tail.isascii() and tail.isdecimal() and len(tail) < _DIGITS else None
    return number if str(number) == tail else None
