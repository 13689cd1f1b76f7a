"""What the tests of the job service say to it, and what they read in its answers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.jobs.file_checks import state_of
from tango_server.jobs.job import Job
from tango_server.jobs.state_machine.events import (
    Accepted,
    AttemptDone,
    AttemptFailed,
    CarrySidecar,
    Convert,
    Event,
    Fetch,
    Fetched,
    Finish,
    Instant,
    Instruction,
    Observe,
    Observed,
    Written,
)
from tango_server.jobs.state_machine.machine import JobStateMachine
from tango_server.messages import FrameReport, FrameRequest
from tango_server.recipe import Recipe
from tests.conftest import DATA

COMPLETE = state_of(FrameLocation(DATA / "qxrd_f32_64.tif"))
COMPLETE_AGAIN = replace(COMPLETE, mtime_ns=COMPLETE.mtime_ns + 1)
UNFINISHED = state_of(FrameLocation(DATA / "unfinished_half_ifd.tif"))
IFD_FIRST = state_of(FrameLocation(DATA / "fabio_int32_64.tif"))
NO_TIFF = state_of(FrameLocation(DATA / "not_a_tiff.tif"))
XDI = Recipe.preset("xdi", rotation=90)


def at(seconds: float, wall: float = 1.7e9) -> Instant:
    """A reading of the clocks; the wall clock starts from `wall`."""
    return Instant(monotonic=seconds, wall=wall + seconds)


def job(
    name: str, run_uid: str | None = None, *, recipe: Recipe = XDI, metadata: dict[str, object] | None = None
) -> Job:
    request = FrameRequest(
        source=f"/raw/{name}.tif", recipe=recipe, run_uid=run_uid, stream="primary", seq_num=7, metadata=metadata or {}
    )
    return Job(name, request, Path(request.source), Path(f"/processed/{name}.tif"), 1.7e9)


class LedgerService(JobStateMachine):
    """A service whose ledger is at once: jobs that are fetched were accepted before, reports are written as they come.

    With `holding` reports are written by the test's own events.
    """

    holding = False

    def handle(self, event: Event, now: Instant) -> list[Instruction]:
        if not isinstance(event, Fetched):
            return self._written(super().handle(event, now), now)
        fetch = super().handle(Accepted(len(event.jobs)), now)
        steps = self._written(super().handle(event, now), now)
        return [step for step in [*fetch, *steps] if not isinstance(step, Fetch)]

    def _written(self, steps: list[Instruction], now: Instant) -> list[Instruction]:
        written = frozenset(str(step.report.job_id) for step in steps if isinstance(step, Finish))
        return steps if self.holding or not written else [*steps, *super().handle(Written(written), now)]


def accepted(*names: str, run_uid: str | None = None) -> Fetched:
    return fetched(tuple(job(name, run_uid) for name in names))


def fetched(jobs: tuple[Job, ...]) -> Fetched:
    return Fetched(jobs, frozenset(), 0)


def converted(name: str, sidecar: Literal["carried", "absent"] = "carried", reason: str = "") -> AttemptDone:
    report = FrameReport(
        source=f"/raw/{name}.tif", output=f"/processed/{name}.tif", outcome="converted", finished=1.7e9,
        sidecar=sidecar, reason=reason, conversion_time=0.25, bytes_in=10, bytes_out=20,
    )  # fmt: skip
    return AttemptDone(name, report)


def crashed(name: str) -> AttemptFailed:
    return AttemptFailed(name, "crashed", "the worker process 17 died")


def not_ready(name: str) -> AttemptFailed:
    return AttemptFailed(name, "not_ready", "it shrank")


def looks(instructions: Sequence[Instruction]) -> list[str]:
    return [step.job.job_id for step in instructions if isinstance(step, Observe)]


def starts(instructions: Sequence[Instruction]) -> list[str]:
    return [step.job.job_id for step in instructions if isinstance(step, Convert)]


def reports(instructions: Sequence[Instruction]) -> list[FrameReport]:
    return [step.report for step in instructions if isinstance(step, Finish)]


def carries(instructions: Sequence[Instruction]) -> list[tuple[str, Path]]:
    return [(step.job.job_id, step.output) for step in instructions if isinstance(step, CarrySidecar)]


def make_ready(service: JobStateMachine, *names: str, seconds: float = 0.0) -> list[str]:
    """Have jobs accepted and their files seen complete; return the conversions that start."""
    started = []
    for name in names:
        service.handle(accepted(name), at(seconds))
        started += starts(service.handle(Observed(name, COMPLETE), at(seconds)))
    return started
