"""The ledger beside a plain list: whatever is done in whatever order, the service reads each pending job once."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tango_server.jobs.ledger.database import Database
from tango_server.jobs.ledger.history import History
from tango_server.jobs.ledger.ledger import Ledger
from tango_server.jobs.state_machine.events import Selection
from tango_server.messages import Outcome, ReportsQuery
from tests.unit.ledger_entries import ACCEPTED, finish, job, pending_ids, report

RUNS = ("run-1", "run-2")
KEYS = ("key-1", "key-2", "key-3", "key-4")


@dataclass(frozen=True)
class Known:
    """What the plain list knows of a job. `place`: where it stands in the queue."""

    job_id: str
    place: int
    run_uid: str | None
    outcome: Outcome | None = None
    retryable: bool = False


class LedgerBesideAList(RuleBasedStateMachine):
    """Does the same with both."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.jobs: dict[str, Known] = {}
        self.keys: dict[str, str] = {}
        self.count = 0
        self.open()

    def open(self) -> None:
        self.database = Database(Path(self.folder.name) / "ledger.sqlite")
        self.ledger = Ledger(self.database)
        self.history = History(self.database)
        self.read_to = 0
        self.read: set[str] = set()

    def teardown(self) -> None:
        self.database.close()
        self.folder.cleanup()

    def pending(self) -> list[Known]:
        waiting = (job for job in self.jobs.values() if job.outcome is None)
        return sorted(waiting, key=lambda job: job.place)

    def next_place(self) -> int:
        self.count += 1
        return self.count

    @rule(wanted=st.lists(st.tuples(st.sampled_from(RUNS) | st.none(), st.sampled_from(KEYS) | st.none()), max_size=5))
    def accept(self, wanted: list[tuple[str | None, str | None]]) -> None:
        jobs, expected = [], []
        for run_uid, key in wanted:
            place = self.next_place()
            job_id = f"job-{place}"
            jobs.append(job(job_id, run_uid, key=key))
            if key in self.keys:
                expected.append((self.keys[key], False))
                continue
            expected.append((job_id, True))
            self.jobs[job_id] = Known(job_id, place, run_uid)
            if key is not None:
                self.keys[key] = job_id
        booked = self.ledger.accept(jobs)
        assert [(one.job_id, one.new) for one in booked] == expected

    @rule(window=st.integers(1, 5))
    def fetch(self, window: int) -> None:
        """Read the next ones, as the service does: never one twice, none left out."""
        expected = [job.job_id for job in self.pending() if job.job_id not in self.read][:window]
        fetched = self.ledger.fetch(self.read_to, window)
        assert [job.job_id for job in fetched.jobs] == expected
        self.read_to = fetched.last
        self.read.update(expected)

    @precondition(lambda self: self.read)
    @rule(data=st.data(), outcome=st.sampled_from(["converted", "skipped", "failed"]))
    def finish(self, data: st.DataObject, outcome: Outcome) -> None:
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.read)), max_size=4, unique=True))
        finish(self.ledger, *(report(job_id, outcome) for job_id in chosen))
        for job_id in chosen:
            if self.jobs[job_id].outcome is None:
                self.jobs[job_id] = replace(self.jobs[job_id], outcome=outcome, retryable=outcome == "failed")

    @rule(data=st.data(), by=st.sampled_from(["all", "run", "ids"]))
    def cancel(self, data: st.DataObject, by: str) -> None:
        ids = st.lists(st.sampled_from(sorted(self.jobs)), max_size=4) if self.jobs else st.just([])
        spared, named = set(data.draw(ids)), data.draw(ids)
        run_uid = data.draw(st.sampled_from(RUNS))
        selection, names = {
            "all": (Selection(), set(self.jobs)),
            "run": (Selection(run_uid=run_uid), {job.job_id for job in self.jobs.values() if job.run_uid == run_uid}),
            "ids": (Selection(job_ids=tuple(named)), set(named)),
        }[by]
        meant = {job.job_id for job in self.pending()} & names - spared
        assert self.ledger.cancel(selection, spared, ACCEPTED) == meant
        for job_id in meant:
            self.jobs[job_id] = replace(self.jobs[job_id], outcome="skipped")

    @rule()
    def retry(self) -> None:
        again = [job for job in self.jobs.values() if job.retryable]
        assert self.ledger.retry_failed().frames == len(again)
        for one in again:
            self.jobs[one.job_id] = replace(one, place=self.next_place(), outcome=None, retryable=False)
            self.read.discard(one.job_id)

    @rule()
    def dismiss(self) -> None:
        self.ledger.dismiss_failed()
        self.jobs = {job_id: replace(job, retryable=False) for job_id, job in self.jobs.items()}

    @rule()
    def forget_all_that_is_finished(self) -> None:
        while self.history.prune(-1.0, 1000):
            pass
        self.jobs = {job_id: job for job_id, job in self.jobs.items() if job.outcome is None}
        self.keys = {key: job_id for key, job_id in self.keys.items() if job_id in self.jobs}
        self.read &= self.jobs.keys()

    @rule(power_lost=st.booleans())
    def restart(self, power_lost: bool) -> None:
        self.database.close()
        self.open()
        if not power_lost:
            return
        lost = [job for job in self.jobs.values() if job.outcome == "converted"]
        assert self.history.reopen_unsynced() == len(lost)
        for one in lost:
            self.jobs[one.job_id] = replace(one, outcome=None)

    @invariant()
    def both_agree(self) -> None:
        assert pending_ids(self.ledger) == [job.job_id for job in self.pending()]
        assert self.ledger.pending() == len(self.pending())
        reports, pending = self.history.reports(ReportsQuery(job_ids=list(self.jobs)))
        assert pending == len(self.pending())
        done = [(job.job_id, job.outcome) for job in self.jobs.values() if job.outcome is not None]
        assert [(one.job_id, one.outcome) for one in reports] == done


LedgerBesideAList.TestCase.settings = settings(max_examples=20, stateful_step_count=30)
test_the_ledger_does_as_the_list_does = pytest.mark.timeout(300)(LedgerBesideAList.TestCase)
