"""The edge of the job service: threads that look at files, run conversions and keep the ledger, as the service says."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from tango_server.conversion.errors import ConversionError, SourceMissingError
from tango_server.conversion.publish import remove_leftovers
from tango_server.conversion.sidecar import carry_sidecar
from tango_server.conversion.structure import read_structure
from tango_server.jobs.executors import Executor, Result
from tango_server.jobs.intake import entry_for
from tango_server.jobs.ledger import Ledger
from tango_server.jobs.service import ConversionService
from tango_server.jobs.vocabulary import (
    Accepted,
    AttemptDone,
    AttemptFailed,
    CarrySidecar,
    Convert,
    Ending,
    Event,
    FailuresAcknowledged,
    Finish,
    Instruction,
    Job,
    Observe,
    Observed,
    Reading,
    Refused,
    SidecarLooked,
    Snapshot,
    StatisticsReset,
    TimePassed,
)
from tango_server.jobs.worker import Failure, Task
from tango_server.messages import (
    AcceptedJob,
    FrameReport,
    RefusedRequest,
    ReportsAnswer,
    ReportsQuery,
    RunStatistics,
    SubmitAnswer,
    SubmitQuery,
)
from tango_server.recipe import Recipe
from tango_server.settings import Settings

_log = logging.getLogger(__name__)

_OBSERVERS = 4
_CLOSE_PATIENCE = 5.0
_IDLE_LOOK = 1.0  # rates fall with time, so the numbers are renewed even if nothing happens
_RECIPE = "recipe"


class JobRunner:
    """A running service: one per server start or Init, closed for good by `close`."""

    def __init__(
        self, settings: Settings, ledger: Ledger, executor: Executor, changed: Callable[["JobRunner"], None]
    ) -> None:
        """Take up what the ledger has pending. `changed` is called, from a thread, when the numbers have changed."""
        self._settings = settings
        self._roots = settings.roots()
        self._ledger = ledger
        self._executor = executor
        self._changed = changed
        self.recipe = _kept_recipe(ledger) or settings.recipe
        self._service = ConversionService(settings.service_rules())
        self._inbox: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._observers = ThreadPoolExecutor(_OBSERVERS, thread_name_prefix="petif-observe")
        self._numbers = threading.Lock()
        self._snapshot = Snapshot()
        self._on_the_way = 0  # jobs that are accepted and did not reach the service yet
        self.fault = ""
        self._closing = False
        pending = ledger.pending()
        if pending:
            _log.info("taking up %d jobs that were not finished", len(pending))
            self._hand_over(pending)
        self._recovered = {job.job_id for job in pending}
        self._thread = threading.Thread(target=self._loop, name="petif-jobs", daemon=True)
        self._thread.start()

    @property
    def snapshot(self) -> Snapshot:
        """The numbers now; a job counts from the moment that its acceptance was answered."""
        with self._numbers:
            return replace(self._snapshot, queue_length=self._snapshot.queue_length + self._on_the_way)

    def submit(self, query: SubmitQuery) -> SubmitAnswer:
        """Write the requests to the ledger and return their job ids, or why they are refused.

        A refused request of a run is booked as a failed frame of that run, so that its statistics tell of it.
        """
        entries = [entry_for(raw, self.recipe, self._roots) for raw in query.requests]
        booked = [entry for entry in entries if entry.report is None or entry.job.run_uid]
        answers = iter(self._ledger.accept(booked, query.runs))
        jobs, refused, new = [], [], []
        for entry in entries:
            report, is_new, job_id = entry.report, False, entry.job.job_id
            if report is None or entry.job.run_uid:
                job_id, report, is_new = next(answers)
            if entry.report is None:
                jobs.append(AcceptedJob(job_id=job_id, source=str(entry.job.source)))
                if is_new:
                    new.append(entry)
                continue
            refused.append(RefusedRequest(source=str(entry.job.source), reason=entry.report.reason))
            if is_new:
                self._inbox.put(Refused(entry.report))
        if new:
            self._hand_over([entry.job for entry in new])
        return SubmitAnswer(jobs=jobs, refused=refused)

    def submit_files(self, paths: Sequence[str | Path]) -> SubmitAnswer:
        """Submit files by name, with the server's recipe; each call makes new jobs."""
        return self.submit(SubmitQuery(requests=[{"source": str(path)} for path in paths]))

    def set_recipe(self, recipe: Recipe) -> None:
        """Take another recipe for requests that bring none, and keep it over restarts."""
        self._ledger.keep(_RECIPE, recipe.model_dump_json())
        self.recipe = recipe
        _log.info("the recipe is now %s", recipe.model_dump_json())

    def reset_statistics(self) -> None:
        """Start the counters from zero."""
        self._inbox.put(StatisticsReset())

    def acknowledge(self) -> None:
        """Somebody has seen the failures so far: they are no reason for an alarm any more."""
        self._inbox.put(FailuresAcknowledged())

    def reports(self, query: ReportsQuery) -> ReportsAnswer:
        """Return the reports asked for; raise `UnknownIdError`."""
        reports, pending = self._ledger.reports(query)
        return ReportsAnswer(reports=reports, pending=pending)

    def run_statistics(self, run_uid: str) -> RunStatistics:
        """Return the statistics of one run; raise `UnknownIdError`."""
        return self._ledger.run_statistics(run_uid)

    def readable(self, path: str) -> Path:
        """Return the resolved path; raise `OutsideRootsError` if it lies outside of the read roots."""
        return self._roots.source(path)

    def close(self) -> None:
        """Let running conversions finish and be reported, end the threads and the workers.

        Jobs that are not finished stay on the ledger.
        """
        self._closing = True
        self._executor.close(_CLOSE_PATIENCE)
        self._observers.shutdown(wait=False, cancel_futures=True)
        self._inbox.put(Ending())
        self._inbox.put(None)
        self._thread.join(_CLOSE_PATIENCE)
        for job in self._service.running_jobs():
            remove_leftovers(job.output, job.job_id)
        self._ledger.close()

    def _loop(self) -> None:
        try:
            while self._step():
                pass
        except Exception as error:  # noqa: BLE001 - the boundary of the thread that everything else depends on
            _log.exception("the job service stopped")
            self.fault = f"the job service stopped: {error}. Look into the log, mend it, then call Init."
            self._changed(self)

    def _step(self) -> bool:
        """Take in what has happened and act on it; return whether to go on."""
        instructions: list[Instruction] = []
        events = self._next_events()
        for event in events:
            if event is not None:
                instructions += self._service.handle(event, _now())
        self._perform(instructions)
        self._publish(sum(len(event.jobs) for event in events if isinstance(event, Accepted)))
        return None not in events

    def _hand_over(self, jobs: Sequence[Job]) -> None:
        with self._numbers:
            self._on_the_way += len(jobs)
        self._inbox.put(Accepted(tuple(jobs)))

    def _publish(self, arrived: int) -> None:
        snapshot = self._service.snapshot(_now())
        with self._numbers:
            changed = snapshot != self._snapshot
            self._snapshot = snapshot
            self._on_the_way -= arrived
        if changed:
            self._changed(self)

    def _next_events(self) -> list[Event | None]:
        look = self._service.next_look
        patience = _IDLE_LOOK if look is None else min(max(look - time.monotonic(), 0.0), _IDLE_LOOK)
        try:
            first = self._inbox.get(timeout=patience)
        except queue.Empty:
            return [TimePassed()]
        events = [first]
        while not self._inbox.empty():
            events.append(self._inbox.get())
        return [*events, TimePassed()]

    def _perform(self, instructions: list[Instruction]) -> None:
        """Carry out what the service says; reports go to the ledger first, in one transaction."""
        self._ledger.finish([step.report for step in instructions if isinstance(step, Finish)])
        if self._closing:
            return
        for step in instructions:
            match step:
                case Observe(job_id, source):
                    look: Future[Observed | SidecarLooked] = self._observers.submit(_look_at, job_id, source)
                    look.add_done_callback(partial(self._looked, job_id))
                case CarrySidecar(job, output):
                    look = self._observers.submit(_carry, job, output)
                    look.add_done_callback(partial(self._looked, job.job_id))
                case Convert(job, attempt):
                    again = job.job_id in self._recovered
                    task = Task(job.source, job.output, job.recipe, self._roots, job.job_id, attempt + again)
                    self._executor.start(task, partial(self._attempted, job))

    def _looked(self, job_id: str, look: "Future[Observed | SidecarLooked]") -> None:
        if look.cancelled():
            return
        fault = look.exception()
        if fault is None:
            self._inbox.put(look.result())
            return
        _log.error("job %s: looking at its file failed in a way that it should not", job_id, exc_info=fault)
        self._inbox.put(AttemptFailed(job_id, "final", f"its file can't be looked at ({fault!r})"))

    def _attempted(self, job: Job, result: Result) -> None:
        job_id = job.job_id
        match result:
            case FrameReport():
                self._inbox.put(AttemptDone(job_id, result))
            case Failure(kind, reason):
                self._inbox.put(AttemptFailed(job_id, kind, reason))
            case _:
                _log.warning("job %s: %s", job_id, result)
                remove_leftovers(job.output, job_id)  # its process is gone
                self._inbox.put(AttemptFailed(job_id, "crashed", str(result) or type(result).__name__))


def _kept_recipe(ledger: Ledger) -> Recipe | None:
    """Return the recipe that SetRecipe kept, None if there is none that this version understands."""
    kept = ledger.kept(_RECIPE)
    try:
        return Recipe.model_validate_json(kept) if kept else None
    except ValidationError as error:
        _log.error("the recipe kept by SetRecipe can't be read (%s); the configured one holds. Call SetRecipe.", error)
        return None


def _look_at(job_id: str, source: Path) -> Observed | SidecarLooked:
    try:
        return Observed(job_id, read_structure(source))
    except SourceMissingError:
        return Observed(job_id, None)
    except ConversionError as error:
        return Observed(job_id, None, error.found)


def _carry(job: Job, output: Path) -> SidecarLooked:
    try:
        return SidecarLooked(job.job_id, carry_sidecar(job.source, output, job.recipe, job.job_id) == "carried")
    except ConversionError as error:  # the image is converted; a sidecar that can't follow is told and no failure
        _log.warning("job %s: its sidecar can't be carried: %s", job.job_id, error)
        return SidecarLooked(job.job_id, carried=False)


def _now() -> Reading:
    return Reading(monotonic=time.monotonic(), wall=time.time())
