"""Resources, datums and stream resources, as long as they are of use."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from petif_bluesky.documents.file_series import PassedOver, Series
from petif_bluesky.documents.stream_resources import StreamFiles
from petif_bluesky.text_set import digest

Document = Mapping[str, Any]
Files = Series | StreamFiles | PassedOver

_KEPT = 1000
"""Resources that belong to no open run; a detector that is staged around several runs announces its files once."""


@dataclass(slots=True)
class _Resource:
    files: Files | None = None
    datums: list[bytes] = field(default_factory=list)


class Assets:
    """Of all open runs, and the last resources of those that are over."""

    def __init__(self) -> None:
        self._resources: dict[str, _Resource] = {}
        self._datums: dict[bytes, tuple[str, int]] = {}  # by the digests of their ids, since a night has many
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
        key = digest(datum_id)
        if key not in self._datums:
            self._resources[resource_uid].datums.append(key)
        self._datums[key] = (resource_uid, point)

    def files(self, resource_uid: str) -> Files | None:
        """Return what a resource stands for, None if it was not announced yet."""
        resource = self._resources.get(resource_uid)
        return resource.files if resource else None

    def datum(self, datum_id: str, run_uid: str) -> tuple[Files, int] | None:
        """Return resource and point of a datum that a run uses, None if they are not known yet."""
        resource_uid, point = self._datums.get(digest(datum_id), ("", 0))
        files = self.files(resource_uid)
        if files is None:
            return None
        if resource_uid in self._homeless and run_uid in self._of_runs:
            del self._homeless[resource_uid]
            self._of_runs[run_uid][resource_uid] = None
        return files, point

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
        return len(self._resources) + len(self._datums)

    def _put_aside(self, uid: str) -> None:
        self._homeless[uid] = None
        self._homeless.move_to_end(uid)
        while len(self._homeless) > _KEPT:
            oldest, _ = self._homeless.popitem(last=False)
            self._forget_datums(oldest)
            del self._resources[oldest]

    def _forget_datums(self, uid: str) -> None:
        resource = self._resources[uid]
        for key in resource.datums:
            self._datums.pop(key, None)
        resource.datums.clear()
