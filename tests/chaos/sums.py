"""Sums of a few frames each, asked for beside the frames themselves: what is planned, and what has become of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from tango_server.conversion.combining.member_list import member_list_path
from tango_server.conversion.inspection import inspect_file
from tango_server.messages import RunStatistics
from tests.chaos.audit import Fault, Finding
from tests.chaos.frames import PlannedFrame, image_of
from tests.chaos.ground import Ground

_MEMBERS = 4
_PLACE = "disk"
_SUMMED = {"uint16": "uint32", "int16": "int32", "float32": "float32"}
"""The pixel type of a sum, by that of its frames; all others become float64."""
_RECIPE = {"combine": {"of": "run", "method": "sum"}, "output": {"template": "sum_{first}"}}


@dataclass(frozen=True, slots=True)
class PlannedSum:
    """Frames that become one."""

    number: int
    frames: tuple[PlannedFrame, ...]

    def output(self, ground: Ground) -> Path:
        """Return where it must be."""
        return ground.processed(_PLACE) / f"sum_{self.frames[0].name}"

    def expected(self, seed: int, size: int) -> NDArray[Any]:
        """Return what the frames must have become, by numpy alone."""
        images = [image_of(seed, frame, size) for frame in self.frames]
        kind = np.dtype(_SUMMED.get(images[0].dtype.name, "float64"))
        return np.sum(images, axis=0, dtype=np.float64).astype(kind)


def planned_sums(frames: Sequence[PlannedFrame]) -> list[PlannedSum]:
    """Return the sums of frames that stay as they are and have the same type; the last one of a type may be smaller."""
    alike: dict[str, list[PlannedFrame]] = {}
    for frame in frames:
        if frame.place == _PLACE and not (frame.in_place or frame.hostile or frame.unfinished):
            alike.setdefault(frame.pixel_type, []).append(frame)
    groups = [
        several[start : start + _MEMBERS] for several in alike.values() for start in range(0, len(several), _MEMBERS)
    ]
    return [PlannedSum(number, tuple(group)) for number, group in enumerate(groups)]


class Sums:
    """The sums of one run of the chaos."""

    def __init__(self, seed: int, frames: Sequence[PlannedFrame]) -> None:
        self.planned = planned_sums(frames)
        self.run_uid = f"chaos-{seed}-sums"
        self._seed = seed
        self._places = {
            frame.number: (each, member) for each in self.planned for member, frame in enumerate(each.frames)
        }

    @property
    def numbers(self) -> frozenset[int]:
        """The numbers of all frames that are summed."""
        return frozenset(self._places)

    def outputs(self, ground: Ground) -> list[Path]:
        """Return where all of them and the lists of their frames may be."""
        places = [each.output(ground) for each in self.planned]
        return [path for place in places for path in (place, member_list_path(place))]

    def request(self, frame: PlannedFrame, path: Path) -> dict[str, Any]:
        """Return the request of a frame as a member of its sum."""
        group, member = self._places[frame.number]
        return {
            "source": str(path), "recipe": _RECIPE, "key": f"{frame.key}/sum", "run_uid": self.run_uid,
            "stream": "primary", "seq_num": group.number, "group": f"{self.run_uid}/{group.number}",
            "member": member, "members": len(group.frames),
        }  # fmt: skip

    def findings(
        self,
        job_ids: Mapping[int, set[str]],
        reports: Mapping[str, dict[str, Any]],
        statistics: RunStatistics,
        ground: Ground,
        size: int,
    ) -> Iterator[Finding]:
        """Yield every fault."""
        for number in sorted(self.numbers):
            ids = sorted(job_ids.get(number, ()))
            if len(ids) != 1:
                yield Finding(Fault.DOUBLED if ids else Fault.LOST, f"frame {number} as a member has the jobs {ids}")
            elif ids[0] not in reports:
                yield Finding(Fault.LOST, f"frame {number} as a member: job {ids[0]} has no report")
        for each in self.planned:
            yield from self._of_sum(each, {reports[job]["outcome"] for frame in each.frames for job in
                                           job_ids.get(frame.number, ()) if job in reports}, ground, size)  # fmt: skip
        made = statistics.groups + statistics.groups_failed
        if (statistics.submitted, statistics.pending, made) != (len(self._places), 0, len(self.planned)):
            yield Finding(Fault.LOST, f"{self.run_uid}: {statistics} for {len(self.planned)} sums")

    def _of_sum(self, one: PlannedSum, outcomes: set[str], ground: Ground, size: int) -> Iterator[Finding]:
        output = one.output(ground)
        if not output.exists():
            if "grouped" in outcomes:
                yield Finding(Fault.LOST, f"{output}: its members are grouped, but it is not there")
            return
        found, expected = tifffile.imread(output), one.expected(self._seed, size)
        if found.dtype != expected.dtype or not np.array_equal(found, expected):
            yield Finding(Fault.WRONG, f"{output}: its pixels are not those expected")
        if len(outcomes) != 1:
            yield Finding(Fault.WRONG, f"{output}: its members are {outcomes}")
        listed = [Path(each["source"]).name for each in inspect_file(output)["members"]]
        if listed != [frame.name for frame in one.frames] and outcomes == {"grouped"}:
            yield Finding(Fault.WRONG, f"{output}: its list has {listed}")
