"""Which job starts next: beside a plain list of those that could."""

from dataclasses import replace
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tango_server.jobs.job import Job
from tango_server.jobs.state_machine.ready_queue import ReadyQueue
from tests.unit.ledger_entries import job

OUTPUTS = [Path(f"/processed/{name}.tif") for name in "abc"]


def names(jobs: list[Job]) -> list[str]:
    return [one.job_id for one in jobs]


def writing(name: str, output: Path = OUTPUTS[0]) -> Job:
    return replace(job(name), output=output)


def queue_of(*jobs: Job, workers: int = 4) -> ReadyQueue:
    queue = ReadyQueue(workers)
    for one in jobs:
        queue.add(one)
    return queue


def test_a_job_whose_output_is_being_written_keeps_its_turn() -> None:
    queue = queue_of(writing("first"), writing("second"), job("other"), workers=2)
    assert names(queue.take()) == ["first", "other"]
    queue.add(job("last"))
    queue.ended("first")
    assert names(queue.take()) == ["last"]
    queue.ended("last")
    queue.free({"first"})
    assert names(queue.take()) == ["second"]


def test_dropped_job_does_not_start_or_delay_others() -> None:
    queue = queue_of(writing("a"), writing("b"), writing("c"))
    assert names(queue.take()) == ["a"]
    queue.drop({"b"})
    queue.ended("a")
    queue.free({"a"})
    assert names(queue.take()) == ["c"]


def test_the_end_of_a_job_that_does_not_run_changes_nothing() -> None:
    queue = queue_of(writing("a"), writing("b"))
    queue.take()
    queue.ended("b")
    queue.ended("unknown")
    queue.free({"b", "unknown"})
    assert queue.take() == []
    assert set(queue.running) == {"a"}


def test_worker_has_one_job_or_several_small_ones() -> None:
    queue = ReadyQueue(2, small_at_once=3)
    for name in ("s1", "s2", "s3", "s4"):
        queue.add(job(name), small=True)
    queue.add(job("large"))
    queue.add(job("s5"), small=True)
    assert names(queue.take()) == ["s1", "s2", "s3", "s4"], "the large one would be a third worker's"
    queue.ended("s2")
    assert names(queue.take()) == ["large"]
    assert names(queue.take()) == []
    queue.ended("large")
    assert names(queue.take()) == ["s5"]


class BesideAList(RuleBasedStateMachine):
    """The list says who may start: the first ones whose outputs nobody writes, as long as there are workers."""

    @initialize(workers=st.integers(1, 4))
    def begin(self, workers: int) -> None:
        self.workers = workers
        self.queue = ReadyQueue(workers)
        self.ready: list[Job] = []
        self.running: list[Job] = []
        self.taken: list[Job] = []
        self.count = 0

    @rule(output=st.sampled_from(OUTPUTS))
    def add(self, output: Path) -> None:
        self.count += 1
        one = writing(f"job-{self.count}", output)
        self.queue.add(one)
        self.ready.append(one)

    @rule()
    def take(self) -> None:
        expected: list[Job] = []
        for one in list(self.ready):
            taken = {other.output for other in [*self.running, *self.taken]}
            if len(self.running) < self.workers and one.output not in taken:
                self.ready.remove(one)
                self.running.append(one)
                expected.append(one)
        assert self.queue.take() == expected

    @precondition(lambda self: self.running)
    @rule(data=st.data(), again=st.booleans())
    def end(self, data: st.DataObject, again: bool) -> None:
        one = data.draw(st.sampled_from(self.running))
        self.running.remove(one)
        self.queue.ended(one.job_id)
        if again:
            self.queue.free({one.job_id})
            self.queue.add(one)
            self.ready.append(one)
        else:
            self.taken.append(one)

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.taken))
        self.taken.remove(one)
        self.queue.free({one.job_id})

    @precondition(lambda self: self.ready)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        gone = data.draw(st.sets(st.sampled_from(names(self.ready))))
        self.queue.drop(gone)
        self.ready = [one for one in self.ready if one.job_id not in gone]

    @invariant()
    def both_agree(self) -> None:
        assert len(self.queue) == len(self.ready)
        assert self.queue.running_jobs() == self.running
        assert set(self.queue.running) == set(names(self.running))
        outputs = [one.output for one in self.queue.running_jobs()]
        assert len(outputs) == len(set(outputs)) <= self.workers


BesideAList.TestCase.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
TestReadyQueueBesideAList = BesideAList.TestCase
