"""What has become of every frame: by the reports, by the disk, and by numpy."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from tests.chaos.detector import Written, digest_of
from tests.chaos.frames import PLACES, PlannedFrame, corrected_of, dark_of, expected_of, image_of, mask_of
from tests.chaos.ground import Ground

_SIDECAR = ".metadata"
_DONE = {"converted", "skipped"}


class Fault(StrEnum):
    """What must not happen to any frame."""

    LOST = "lost"
    DOUBLED = "doubly converted"
    WRONG = "wrong output"
    SOURCE = "source changed"
    LEFTOVER = "left behind"
    REFUSED = "refused"
    FORGOTTEN = "report forgotten"
    CHANGED = "report changed"
    TIME = "time that can't be"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault, and what exactly was found."""

    fault: Fault
    text: str

    def __str__(self) -> str:
        return f"{self.fault}: {self.text}"


@dataclass(frozen=True, slots=True)
class Claims:
    """What the server has said: job ids and refusals by frame number, reports by job id, at first and at the end,
    and the number of jobs by run.
    """

    job_ids: Mapping[int, set[str]]
    refused: Mapping[int, str]
    first: Mapping[str, dict[str, Any]]
    last: Mapping[str, dict[str, Any]]
    submitted: Mapping[str, int]


class Auditor:
    """Compares what the server claims with what lies on disk.

    `size` is the frames' edge in pixels, `seconds` how long the run took.
    """

    def __init__(self, seed: int, size: int, seconds: float, ground: Ground) -> None:
        self._seed = seed
        self._size = size
        self._seconds = seconds
        self._ground = ground

    def findings(self, written: list[Written], claims: Claims, others: Iterable[Path] = ()) -> Iterator[Finding]:
        """Yield every fault; `others` are outputs that may be there besides those of single frames."""
        outputs = {path for other in others for path in (other, other.with_name(other.name + _SIDECAR))}
        for one in written:
            report, found = _claimed(one, claims)
            yield from found
            yield from self._source(one, report)
            if report is None:
                continue
            yield from self._times(one, report)
            output = self._output(one)
            if one.frame.hostile:  # what was in it is anybody's guess; that it has a report, and is as it was, is known
                pass
            elif report["outcome"] in _DONE:
                yield from self._converted(one, output, report)
            elif output.exists() and not one.frame.in_place:
                yield from self._content(one, output)  # nothing half, whatever the reason of the failure
            if not one.frame.in_place:
                outputs |= {output, output.with_name(output.name + _SIDECAR)}
        yield from _counted(written, claims.submitted)
        yield from self._strangers({one.path for one in written}, outputs)

    def _output(self, one: Written) -> Path:
        return one.path if one.frame.in_place else self._ground.processed(one.frame.place) / one.path.name

    def _converted(self, one: Written, output: Path, report: dict[str, Any]) -> Iterator[Finding]:
        if one.frame.unfinished:
            yield Finding(Fault.WRONG, f"{one.path}: converted, though its writer never finished it")
        elif report["output"] != str(output):
            fault = Fault.DOUBLED if "-00001" in str(report["output"]) else Fault.WRONG
            yield Finding(fault, f"{one.path}: went to {report['output']}, not to {output}")
        elif not output.exists():
            yield Finding(Fault.LOST, f"{one.path}: {report['outcome']}, but there is no {output}")
        else:
            yield from self._content(one, output, report)
            carried = output.with_name(output.name + _SIDECAR)
            if report["sidecar"] == "carried" and not carried.exists():
                yield Finding(Fault.LOST, f"{carried}: reported as carried, but not there")

    def _content(self, one: Written, output: Path, report: dict[str, Any] | None = None) -> Iterator[Finding]:
        image = image_of(self._seed, one.frame, self._size)
        try:
            found, description = _read(output)
        except (OSError, ValueError, KeyError) as error:
            yield Finding(Fault.WRONG, f"{output}: can't be read ({error!r})")
            return
        if one.frame.corrected:
            yield from self._corrected(one, found, output, report)
        else:
            expected = expected_of(one.frame, image)
            if not _same(found, expected):
                twice = one.frame.in_place and np.array_equal(found, expected_of(one.frame, expected))
                yield Finding(Fault.DOUBLED if twice else Fault.WRONG, f"{output}: its pixels are not those expected")
        if description.get("source") != one.path.name or not _made_by(one.frame, description.get("recipe", {})):
            yield Finding(Fault.WRONG, f"{output}: its provenance is {description}")

    def _corrected(
        self, one: Written, found: NDArray[Any], output: Path, report: dict[str, Any] | None
    ) -> Iterator[Finding]:
        """Check that the frame was corrected once, with its dark, and with the whole mask that its report names."""
        image, dark = image_of(self._seed, one.frame, self._size), dark_of(str(one.frame.run_uid), self._size)
        masks = [mask_of(version, self._size) for version in (0, 1)]
        if report is not None and report["outcome"] == "converted":
            used = {master["kind"]: master["sha256"] for master in report.get("masters", ())}
            if used.get("dark") != digest_of(self._ground.dark(str(one.frame.run_uid))) or "mask" not in used:
                yield Finding(Fault.WRONG, f"{output}: its report has the masters {used}")
            is_latest = used.get("mask") == digest_of(self._ground.mask)
            masks = masks[1:] if is_latest else masks[:1]
        if any(_same(found, corrected_of(one.frame, image, dark, mask)) for mask in masks):
            return
        twice = any(_same(found, corrected_of(one.frame, image, 2 * dark, mask)) for mask in masks)
        fault, words = (Fault.DOUBLED, "corrected twice") if twice else (Fault.WRONG, "not corrected as expected")
        yield Finding(fault, f"{output}: {words}")

    def _times(self, one: Written, report: dict[str, Any]) -> Iterator[Finding]:
        """Durations are measured by the monotonic clock, so no jump of the wall clock may show in them."""
        for name in ("latency", "conversion_time"):
            if report[name] is not None and not 0 <= report[name] <= self._seconds:
                yield Finding(Fault.TIME, f"{one.path}: {name} is {report[name]:.3f} s")

    def _source(self, one: Written, report: dict[str, Any] | None) -> Iterator[Finding]:
        if not one.path.exists():
            yield Finding(Fault.SOURCE, f"{one.path}: gone")
        elif digest_of(one.path) != one.digest:
            if not one.frame.in_place:
                yield Finding(Fault.SOURCE, f"{one.path}: other bytes than were written")
            elif report is None or report["outcome"] not in _DONE:
                yield from self._content(one, one.path)  # turned, and not reported so: then it is at least right
        if one.sidecar_digest and digest_of(one.path.with_name(one.path.name + _SIDECAR)) != one.sidecar_digest:
            yield Finding(Fault.SOURCE, f"{one.path}{_SIDECAR}: other bytes than were written")

    def _strangers(self, sources: set[Path], outputs: set[Path]) -> Iterator[Finding]:
        known = sources | outputs | {path.with_name(path.name + _SIDECAR) for path in sources}
        for place in PLACES:
            for folder, _, names in os.walk(self._ground.root / place):
                for path in (Path(folder, name) for name in names):
                    if path not in known:
                        yield Finding(Fault.DOUBLED if "-00001" in path.name else Fault.LEFTOVER, str(path))


def _claimed(one: Written, claims: Claims) -> tuple[dict[str, Any] | None, list[Finding]]:
    """Return the report of a frame, and what is wrong with what the server says of it."""
    number = one.frame.number
    if number in claims.refused:
        return None, [Finding(Fault.REFUSED, f"{one.path}: {claims.refused[number]}")]
    ids = sorted(claims.job_ids.get(number, ()))
    if not ids:
        return None, [Finding(Fault.LOST, f"{one.path}: has no job")]
    found = [Finding(Fault.DOUBLED, f"{one.path}: has the jobs {ids}")] if len(ids) > 1 else []
    first, last = claims.first.get(ids[0]), claims.last.get(ids[0])
    report = last or first
    if report is None:
        return None, [*found, Finding(Fault.LOST, f"{one.path}: job {ids[0]} has no report")]
    if last is None:
        found.append(Finding(Fault.FORGOTTEN, f"{one.path}: job {ids[0]} had a report, and is unknown now"))
    if first is not None and first["outcome"] != report["outcome"]:
        found.append(Finding(Fault.CHANGED, f"{one.path}: was {first['outcome']}, is {report['outcome']}"))
    if report["outcome"] == "failed" and not report["reason"]:
        found.append(Finding(Fault.LOST, f"{one.path}: failed without a reason"))
    return report, found


def _counted(written: list[Written], submitted: Mapping[str, int]) -> Iterator[Finding]:
    """A run has no more jobs than frames, however often they were handed in."""
    frames = Counter(one.frame.run_uid for one in written if one.frame.run_uid)
    for run_uid, jobs in submitted.items():
        if jobs > frames[run_uid]:
            yield Finding(Fault.DOUBLED, f"{run_uid}: {jobs} jobs for {frames[run_uid]} frames")


def _same(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    return found.dtype == expected.dtype and np.array_equal(found, expected, equal_nan=expected.dtype.kind == "f")


def _read(path: Path) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        return tiff.asarray(), json.loads(page.description) if page.description else {}


def _made_by(frame: PlannedFrame, recipe: dict[str, Any]) -> bool:
    wanted = frame.recipe or {}
    return all(recipe.get(name) == value for name, value in wanted.items() if name != "output")
