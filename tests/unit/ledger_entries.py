"""Jobs and reports for the tests of the durable part."""

from dataclasses import replace
from pathlib import Path

from tango_server.jobs.job import NO_OUTPUT, Job
from tango_server.jobs.ledger.history import History, UnknownIdError
from tango_server.jobs.ledger.ledger import Ledger
from tango_server.jobs.state_machine.events import Finish
from tango_server.messages import FrameReport, FrameRequest, Outcome, ReportsQuery
from tango_server.recipe import Recipe

ACCEPTED = 1.7e9
XDI = Recipe.preset("xdi", rotation=90, flip="1")


class Stopwatch:
    """A monotonic clock (s) that goes on when it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def job(
    job_id: str,
    run_uid: str | None = None,
    *,
    key: str | None = None,
    source: str = "",
    recipe: Recipe = XDI,
    metadata: dict[str, object] | None = None,
    place: int = 0,
) -> Job:
    raw, processed, name = Path("/raw"), Path("/processed"), f"{source or job_id}.tif"
    request = FrameRequest(
        source=str(raw / name), recipe=recipe, key=key, run_uid=run_uid, stream="primary" if run_uid else None,
        metadata=metadata or {},
    )  # fmt: skip
    return Job(
        job_id, request, raw / name, processed / name, ACCEPTED, source_root=raw, output_root=processed, place=place
    )


def refused_job(job_id: str, run_uid: str | None = None, *, key: str | None = None, source: str = "") -> Job:
    """Return the job of a request that is refused at once."""
    one = job(job_id, run_uid, key=key, source=source)
    return replace(one, output=NO_OUTPUT, source_root=None, output_root=None, refused="a relative path")


def report(job_id: str, outcome: Outcome = "converted", **fields: object) -> FrameReport:
    """Return a report as the job service writes it."""
    output = None if outcome == "failed" else f"/processed/{job_id}.tif"
    base = FrameReport(
        job_id=job_id, source=f"/raw/{job_id}.tif", output=output, outcome=outcome, finished=ACCEPTED + 1
    )
    return base.model_copy(update=fields)


def accept(ledger: Ledger, *job_ids: str) -> None:
    ledger.accept([job(job_id) for job_id in job_ids])


def finish(ledger: Ledger, *reports: FrameReport) -> None:
    ledger.finish([Finish(one, (1, 2)) for one in reports])


def pending_ids(ledger: Ledger, portion: int = 100) -> list[str]:
    """Return the ids of the jobs without a report in the order of the queue, as the service reads them."""
    found: list[str] = []
    last = 0
    while (fetched := ledger.fetch(last, portion)).last != last:
        found += [waiting.job_id for waiting in fetched.jobs]
        last = fetched.last
    return found


def known(history: History, *job_ids: str) -> list[bool]:
    """Whether each job is known."""

    def is_known(job_id: str) -> bool:
        try:
            history.reports(ReportsQuery(job_ids=[job_id]))
        except UnknownIdError:
            return False
        return True

    return [is_known(job_id) for job_id in job_ids]


def prune(history: History, kept_for: float, limit: int = 10**9) -> int:
    """Prune as often as there is something to prune; return how many jobs are forgotten."""
    total = 0
    while pruned := history.prune(kept_for, limit):
        total += pruned
    return total
