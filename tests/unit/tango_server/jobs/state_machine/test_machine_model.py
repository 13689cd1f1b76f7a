"""The service on a real ledger, its world in any order: each accepted job ends once, and the limits hold throughout."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Literal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from tango_server.jobs.job import Job
from tango_server.jobs.ledger.history import History
from tango_server.jobs.state_machine.events import (
    Accepted,
    AttemptDone,
    AttemptFailed,
    Cancel,
    Cancelled,
    CancelWanted,
    CarrySidecar,
    Convert,
    FailureKind,
    FailuresRetried,
    Fetch,
    Finish,
    Instant,
    Instruction,
    Observe,
    Observed,
    ObservedDark,
    PauseWanted,
    Selection,
    SidecarObserved,
    TimePassed,
    Written,
)
from tango_server.jobs.state_machine.rules import ServiceRules
from tango_server.messages import FrameReport, ReportsQuery
from tests.unit.ledger_entries import job
from tests.unit.service_events import COMPLETE, UNFINISHED
from tests.unit.service_world import SMALL_WINDOW, ServiceWorld

OUTPUTS = [Path(f"/processed/{name}.tif") for name in "abcd"]
FINDINGS = ("new file", "new file", "the same", "unfinished", "nothing", "no dark", "no sidecar")
Place = Literal["new", "seen", "running", "blocked", "carrying"]
"""Where a job in memory is, as told by what the service was answered."""


class World(ServiceWorld):
    """Frames of one run, each by itself.

    Reports are written at once, in the order of the instructions; everything else may take its time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.accepted: list[str] = []
        self.ended: Counter[str] = Counter()
        self.expected: Counter[str] = Counter()

    @initialize(workers=st.integers(1, 3), placeholders=st.booleans(), attempts=st.integers(1, 2))
    def start(self, workers: int, placeholders: bool, attempts: int) -> None:
        self.rules = ServiceRules(workers=workers, placeholders=placeholders, attempts=attempts)
        self.open()

    def open(self) -> None:
        self.conversions: list[Job] = []
        self.sidecars: list[Job] = []
        self.places: dict[str, Place] = {}
        self.processed = 0
        self.retried = 0
        super().open()

    def do(self, step: Instruction) -> None:
        match step:
            case Fetch(after, limit):
                assert 0 < limit <= SMALL_WINDOW - self.in_window()
                self.inbox.append(self.ledger.fetch(after, limit))
                self.places |= {one.job_id: "new" for one in self.inbox[-1].jobs}
            case Observe(one):
                assert one not in self.looks + self.conversions + self.sidecars
                self.looks.append(one)
            case Convert(one):
                assert self.places[one.job_id] == "seen"
                self.places[one.job_id] = "running"
                self.conversions.append(one)
            case CarrySidecar(one):
                self.places[one.job_id] = "carrying"
                self.sidecars.append(one)
            case Finish(report):
                self.ledger.finish([step])
                self.end(str(report.job_id))
                self.inbox.append(Written(frozenset({str(report.job_id)})))
            case Cancel(_, selection, spared):
                assert {one.job_id for one in self.conversions + self.sidecars} <= spared
                gone = self.ledger.cancel(selection, spared, self.now)
                for job_id in gone:
                    self.end(job_id)
                self.inbox.append(Cancelled(len(gone), gone))

    def end(self, job_id: str) -> None:
        self.ended[job_id] += 1
        self.processed += 1
        assert self.ended[job_id] <= self.expected[job_id], f"{job_id} ended twice"
        self.places.pop(job_id, None)

    def in_window(self) -> int:
        return sum(place in {"new", "blocked"} for place in self.places.values()) + len(self.service._queue)

    @rule(outputs=st.lists(st.sampled_from(OUTPUTS), min_size=1, max_size=6))
    def accept(self, outputs: list[Path]) -> None:
        names = [f"job-{len(self.accepted) + number}" for number in range(len(outputs))]
        jobs = [replace(job(name), output=output) for name, output in zip(names, outputs, strict=True)]
        self.ledger.accept(jobs)
        self.accepted += names
        self.expected.update(names)
        self.inbox.append(Accepted(len(jobs)))

    def hear(self) -> None:
        event = self.inbox[0]
        if isinstance(event, Cancelled):
            self.looks = [one for one in self.looks if one.job_id not in event.job_ids]
        super().hear()

    @precondition(lambda self: self.looks)
    @rule(data=st.data(), found=st.lists(st.sampled_from(FINDINGS), min_size=1, max_size=SMALL_WINDOW))
    def look(self, data: st.DataObject, found: list[str]) -> None:
        for finding in found[: len(self.looks)]:
            self.looked(self.looks.pop(data.draw(st.integers(0, len(self.looks) - 1))), finding)

    def looked(self, one: Job, found: str) -> None:
        self.mtime += found == "new file"
        state = {"unfinished": UNFINISHED, "nothing": None}.get(found, replace(COMPLETE, mtime_ns=self.mtime))
        if one.job_id in self.places:
            self.places[one.job_id] = "seen"
        dark = ObservedDark(Path("/raw/dark.tif"), UNFINISHED if found == "no dark" else COMPLETE)
        lacks = found == "no sidecar"
        self.send(Observed(one.job_id, state, lacks_sidecar=lacks, darks=(dark,) if state else ()))

    @precondition(lambda self: self.conversions)
    @rule(data=st.data(), sidecar=st.sampled_from(["carried", "absent"]))
    def convert(self, data: st.DataObject, sidecar: Literal["carried", "absent"]) -> None:
        one = self.conversions.pop(data.draw(st.integers(0, len(self.conversions) - 1)))
        report = FrameReport(
            source=str(one.source), output=str(one.output), outcome="converted", finished=0.0, sidecar=sidecar
        )
        self.send(AttemptDone(one.job_id, report))

    @precondition(lambda self: self.conversions)
    @rule(data=st.data(), kind=st.sampled_from(["final", "not_ready", "blocked", "crashed", "unavailable"]))
    def fail(self, data: st.DataObject, kind: FailureKind) -> None:
        one = self.conversions.pop(data.draw(st.integers(0, len(self.conversions) - 1)))
        self.places[one.job_id] = "blocked" if kind in {"blocked", "unavailable"} else "seen"
        self.send(AttemptFailed(one.job_id, kind, "it went wrong"))

    @precondition(lambda self: self.sidecars)
    @rule(data=st.data(), carried=st.booleans())
    def look_for_a_sidecar(self, data: st.DataObject, carried: bool) -> None:
        one = self.sidecars.pop(data.draw(st.integers(0, len(self.sidecars) - 1)))
        self.send(SidecarObserved(one.job_id, carried))

    @rule(data=st.data(), what=st.sampled_from(["pause", "resume", "resume", "cancel", "cancel all", "retry", "die"]))
    def intervene(self, data: st.DataObject, what: str) -> None:
        """Do what happens seldom: otherwise hardly a job would get far."""
        match what:
            case "pause" | "resume":
                self.send(PauseWanted(what == "pause"))
            case "cancel" if self.accepted:
                chosen = data.draw(st.sets(st.sampled_from(self.accepted), max_size=3))
                self.send(CancelWanted("ticket", Selection(tuple(chosen))))
            case "cancel all":
                self.send(CancelWanted("ticket", Selection()))
            case "retry" if self.accepted:
                answer = History(self.database).reports(ReportsQuery(job_ids=self.accepted, outcome="failed"))[0]
                again = [str(report.job_id) for report in answer]
                assert self.ledger.retry_failed().frames == len(again)
                self.expected.update(again)
                self.inbox.append(FailuresRetried(len(again)))
            case "die":
                self.open()

    @invariant()
    def no_limit_is_passed(self) -> None:
        if not hasattr(self, "service"):
            return
        running = self.service.running_jobs()
        assert sorted(running, key=lambda one: one.place) == sorted(self.conversions, key=lambda one: one.place)
        assert len(running) <= self.rules.workers
        assert len({one.output for one in running}) == len(running), "two jobs write one output"
        assert sum(place == "new" for place in self.places.values()) <= SMALL_WINDOW

    @invariant()
    def the_service_has_processed_what_has_ended(self) -> None:
        if hasattr(self, "service") and not self.inbox:
            assert self.service.snapshot(Instant(self.now, 1.7e9)).processed == self.processed

    def come_to_an_end(self) -> None:
        """All files are there, every conversion goes well: all jobs end, and the ledger has a report of each."""
        self.send(PauseWanted(paused=False))
        for _ in range(20 + 12 * len(self.accepted)):
            while self.inbox:
                self.hear()
            for one in self.looks[:]:
                self.looks.remove(one)
                self.looked(one, "new file")
            for one in self.conversions[:]:
                self.conversions.remove(one)
                report = FrameReport(source=str(one.source), outcome="converted", finished=0.0, sidecar="carried")
                self.send(AttemptDone(one.job_id, report))
            for one in self.sidecars[:]:
                self.sidecars.remove(one)
                self.send(SidecarObserved(one.job_id, carried=True))
            self.now = max(self.now, self.service.next_poll or 0.0)
            self.send(TimePassed())
        assert self.ended == self.expected
        assert self.ledger.pending() == 0
        assert self.service.snapshot(Instant(self.now, 0.0)).queue_length == 0


World.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestServiceInItsWorld = World.TestCase
