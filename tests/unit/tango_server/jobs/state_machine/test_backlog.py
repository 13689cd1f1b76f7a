"""The part of the queue that stays on disk: counted exactly, read in portions, never left behind."""

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tango_server.jobs.state_machine.backlog import WINDOW, Backlog
from tango_server.jobs.state_machine.events import Cancelled, Fetch, Fetched
from tests.unit.ledger_entries import job


def found(*names: str, unreadable: frozenset[str] = frozenset(), last: int = 0) -> Fetched:
    return Fetched(tuple(job(name) for name in names), unreadable, last)


@pytest.fixture
def backlog() -> Backlog:
    return Backlog()


def test_nothing_is_read_of_an_empty_ledger(backlog: Backlog) -> None:
    assert backlog.fetch(0) == []


def test_what_is_accepted_is_read_at_once_and_only_once(backlog: Backlog) -> None:
    backlog.accepted(3)
    assert backlog.fetch(0) == [Fetch(0, WINDOW)]
    assert backlog.fetch(0) == []
    backlog.fetched(found("a", "b", "c", last=3))
    assert backlog.length == 0
    assert backlog.fetch(0) == []


def test_reading_goes_on_behind_what_was_read(backlog: Backlog) -> None:
    backlog.accepted(10)
    backlog.fetch(0)
    backlog.fetched(found("a", "b", last=7))
    assert backlog.length == 8
    assert backlog.fetch(2) == [Fetch(7, WINDOW - 2)]


@pytest.mark.parametrize(
    ("in_window", "waiting", "limit"),
    [
        (WINDOW, 1, None),
        (WINDOW - 1, 1, 1),
        (WINDOW - 1, 2, None),
        (WINDOW - 10, 10, 10),
        (WINDOW // 2 + 1, 10**5, None),
        (WINDOW // 2, 10**5, WINDOW // 2),
    ],
    ids=["no room", "the last one", "not all of the rest", "all of the rest", "a small portion", "half a window"],
)
def test_window_is_filled_in_portions_worth_a_disk_read(
    in_window: int, waiting: int, limit: int | None, backlog: Backlog
) -> None:
    backlog.accepted(waiting)
    assert backlog.fetch(in_window) == ([] if limit is None else [Fetch(0, limit)])


def test_cancelling_all_counts_jobs_that_could_not_be_read_only_once(backlog: Backlog) -> None:
    backlog.accepted(5)
    backlog.fetch(0)
    backlog.fetched(found("a", unreadable=frozenset({"b", "c"}), last=3))
    backlog.cancelled(Cancelled(5, frozenset("abcde")), in_memory=1)
    assert backlog.length == 0
    backlog.accepted(1)
    assert backlog.fetch(0) == [Fetch(3, WINDOW)]


def test_an_unreadable_job_that_was_not_cancelled_stays_passed(backlog: Backlog) -> None:
    backlog.accepted(4)
    backlog.fetch(0)
    backlog.fetched(found(unreadable=frozenset("ab"), last=2))
    backlog.cancelled(Cancelled(2, frozenset("ac")), in_memory=0)
    assert backlog.length == 1
    backlog.cancelled(Cancelled(2, frozenset("bd")), in_memory=0)
    assert backlog.length == 0


def test_job_may_be_read_before_its_acceptance_is_reported(backlog: Backlog) -> None:
    backlog.accepted(1)
    backlog.fetch(0)
    backlog.fetched(found("a", "b", "c", last=3))
    assert backlog.length == -2
    assert backlog.fetch(0) == []
    backlog.accepted(2)
    assert backlog.length == 0


def test_ledger_with_fewer_jobs_than_reported_is_not_read_forever(backlog: Backlog) -> None:
    backlog.accepted(7)
    backlog.fetch(0)
    backlog.fetched(found())
    assert backlog.length == 0
    assert backlog.fetch(0) == []


def test_job_accepted_during_an_empty_ledger_read_is_not_lost(backlog: Backlog) -> None:
    backlog.accepted(7)
    backlog.fetch(0)
    backlog.accepted(2)
    backlog.fetched(found())
    assert backlog.length == 2
    assert backlog.fetch(0) == [Fetch(0, WINDOW)]


@dataclass(frozen=True)
class Row:
    """A job on the ledger."""

    job_id: str
    place: int
    readable: bool


class BacklogBesideALedger(RuleBasedStateMachine):
    """A plain list as the ledger, and all that may be on the way between it and the backlog, in any order.

    What the engine promises: it reads and cancels in the order in which it was told to, and tells so in that order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backlog = Backlog()
        self.rows: list[Row] = []
        self.places = 0
        self.untold: list[int] = []  # acceptances on their way
        self.asked: list[Fetch] = []
        self.answers: list[tuple[Fetched, list[Row]] | Cancelled] = []
        self.memory: dict[str, Row] = {}
        self.failed: list[Row] = []
        self.read_to = 0
        self.cancelling = False

    def add(self, names: list[str], readable: list[bool]) -> None:
        for name, clear in zip(names, readable, strict=True):
            self.places += 1
            self.rows.append(Row(name, self.places, clear))
        self.untold.append(len(names))

    @rule(readable=st.lists(st.booleans(), min_size=1, max_size=6))
    def accept(self, readable: list[bool]) -> None:
        self.add([f"job-{self.places + number + 1}" for number in range(len(readable))], readable)

    @precondition(lambda self: self.untold)
    @rule(data=st.data())
    def tell_of_jobs(self, data: st.DataObject) -> None:
        self.backlog.accepted(self.untold.pop(data.draw(st.integers(0, len(self.untold) - 1))))

    @precondition(lambda self: not self.cancelling)
    @rule(in_window=st.integers(WINDOW - 8, WINDOW))
    def ask(self, in_window: int) -> None:
        for step in self.backlog.fetch(in_window):
            assert not self.asked
            assert step.after == self.read_to
            assert 0 < step.limit <= WINDOW - in_window
            self.asked.append(step)

    @precondition(lambda self: self.asked)
    @rule()
    def read(self) -> None:
        step = self.asked.pop()
        rows = [row for row in self.rows if row.place > step.after][: step.limit]
        fetched = found(
            *(row.job_id for row in rows if row.readable),
            unreadable=frozenset(row.job_id for row in rows if not row.readable),
            last=rows[-1].place if rows else step.after,
        )
        self.answers.append((fetched, rows))

    @precondition(lambda self: not self.cancelling)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.cancelling = True
        spared = data.draw(st.sets(st.sampled_from(sorted(self.memory)))) if self.memory else set()
        meant = data.draw(st.sets(st.sampled_from([row.job_id for row in self.rows]))) if self.rows else set()
        if data.draw(st.booleans()):
            meant = {row.job_id for row in self.rows}
        if self.asked:
            self.read()
        gone = frozenset(meant - spared)
        self.rows = [row for row in self.rows if row.job_id not in gone]
        self.answers.append(Cancelled(len(gone), gone))

    @precondition(lambda self: self.answers)
    @rule()
    def answer(self) -> None:
        match self.answers.pop(0):
            case Cancelled() as event:
                in_memory = [name for name in self.memory if name in event.job_ids]
                self.backlog.cancelled(event, len(in_memory))
                for name in in_memory:
                    del self.memory[name]
                self.cancelling = False
            case fetched, rows:
                self.backlog.fetched(fetched)
                self.read_to = fetched.last
                self.memory.update({row.job_id: row for row in rows if row.readable})

    @precondition(lambda self: self.memory and not self.cancelling)
    @rule(data=st.data(), failed=st.booleans())
    def finish(self, data: st.DataObject, failed: bool) -> None:
        row = self.memory.pop(data.draw(st.sampled_from(sorted(self.memory))))
        self.rows.remove(row)
        if failed:
            self.failed.append(row)

    @precondition(lambda self: self.failed)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        """Put what has failed behind everything else; another version may have changed it."""
        self.add([row.job_id for row in self.failed], [data.draw(st.booleans()) for _ in self.failed])
        self.failed = []

    def unread(self) -> list[Row]:
        return [row for row in self.rows if row.place > self.read_to]

    @invariant()
    def the_count_is_exact_whenever_nothing_is_on_its_way(self) -> None:
        if not self.untold and not self.answers:
            assert self.backlog.length == len(self.unread())

    def teardown(self) -> None:
        """Everything on the way arrives, the window is empty: then every job is read."""
        while self.asked or self.answers:
            if self.asked:
                self.read()
            self.answer()
        for count in self.untold:
            self.backlog.accepted(count)
        while steps := self.backlog.fetch(0):
            self.asked += steps
            self.read()
            self.answer()
        assert self.unread() == []
        assert self.backlog.length == 0


BacklogBesideALedger.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBacklogBesideALedger = BacklogBesideALedger.TestCase
