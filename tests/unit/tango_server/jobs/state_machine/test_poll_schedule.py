"""When awaited files are looked at: by the clock of a simulation, with a plain count of looks beside the schedule."""

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tango_server.jobs.state_machine.poll_schedule import POLLS_AT_A_TIME, POLLS_PER_SECOND, PollSchedule

NOW = 100.0


@pytest.fixture
def schedule() -> PollSchedule:
    return PollSchedule()


def follow(schedule: PollSchedule, intervals: dict[str, float], seconds: float) -> Counter[str]:
    """Look whenever the schedule wants to, at each file again after its interval; return how often at each."""
    looks: Counter[str] = Counter()
    for name, interval in intervals.items():
        schedule.add(name, NOW + interval, NOW)
    while (now := schedule.next) is not None and now < NOW + seconds:
        for name in schedule.take_due(now):
            looks[name] += 1
            schedule.returned(name)
            schedule.add(name, now + intervals[name], now)
    return looks


def test_nothing_is_due_if_nothing_is_awaited(schedule: PollSchedule) -> None:
    assert schedule.next is None
    assert schedule.take_due(NOW) == []


def test_file_is_polled_once_when_due_and_not_before(schedule: PollSchedule) -> None:
    schedule.add("a", NOW + 0.5, NOW)
    assert schedule.next == pytest.approx(NOW + 0.5)
    assert schedule.take_due(NOW + 0.499) == []
    assert schedule.take_due(NOW + 0.501) == ["a"]
    assert schedule.take_due(NOW + 100) == []
    assert schedule.next is None


@pytest.mark.parametrize("again", [NOW - 5, NOW, NOW + 0.001])
def test_file_is_not_polled_without_a_pause(again: float, schedule: PollSchedule) -> None:
    schedule.add("a", again, NOW)
    assert schedule.take_due(NOW + 0.009) == []
    assert schedule.take_due(NOW + 0.011) == ["a"]


def test_files_are_polled_in_the_order_they_are_due(schedule: PollSchedule) -> None:
    for name, pause in (("late", 0.3), ("soon", 0.1), ("then", 0.2), ("also then", 0.2)):
        schedule.add(name, NOW + pause, NOW)
    assert schedule.take_due(NOW + 1) == ["soon", "then", "also then", "late"]


def test_concurrent_polls_are_limited_for_slow_file_servers(schedule: PollSchedule) -> None:
    names = [f"{number:02d}" for number in range(POLLS_AT_A_TIME + 3)]
    for name in names:
        schedule.add(name, NOW + 0.1, NOW)
    taken = schedule.take_due(NOW + 10)
    assert taken == names[:POLLS_AT_A_TIME]
    assert schedule.next is None
    assert schedule.take_due(NOW + 20) == []
    schedule.returned(taken[0])
    assert schedule.next is not None
    assert schedule.take_due(NOW + 20) == [names[POLLS_AT_A_TIME]]
    schedule.forget(taken[1])
    assert schedule.take_due(NOW + 20) == [names[POLLS_AT_A_TIME + 1]]


def test_forgotten_file_is_no_longer_polled(schedule: PollSchedule) -> None:
    schedule.add("a", NOW + 0.1, NOW)
    schedule.add("b", NOW + 0.1, NOW)
    schedule.forget("a")
    assert schedule.take_due(NOW + 1) == ["b"]


def test_few_files_are_polled_as_often_as_requested(schedule: PollSchedule) -> None:
    looks = follow(schedule, {"a": 0.5, "b": 0.25}, seconds=100)
    assert looks["a"] == pytest.approx(200, abs=2)
    assert looks["b"] == pytest.approx(400, abs=2)


@pytest.mark.parametrize("count", [100, 3000])
def test_polls_stay_below_the_rate_limit_and_slow_down_alike(count: int, schedule: PollSchedule) -> None:
    patient, eager = [f"p{number}" for number in range(count)], [f"e{number}" for number in range(count)]
    looks = follow(schedule, {**dict.fromkeys(patient, 0.2), **dict.fromkeys(eager, 0.02)}, seconds=60)
    assert looks.total() / 60 == pytest.approx(POLLS_PER_SECOND, rel=0.1)
    often, seldom = sum(looks[name] for name in eager), sum(looks[name] for name in patient)
    assert often / seldom == pytest.approx(10, rel=0.15)
    assert min(looks.values()) > 0
    assert len(looks) == 2 * count


def test_a_new_file_does_not_stand_behind_thousands_of_old_ones(schedule: PollSchedule) -> None:
    old = {f"old-{number}": 0.5 for number in range(20_000)}
    for name, interval in old.items():
        schedule.add(name, NOW + interval, NOW)
    schedule.add("new", NOW + 0.02, NOW)
    looked_at = 0
    while "new" not in (taken := schedule.take_due(schedule.next or NOW)):
        looked_at += len(taken)
        for name in taken:
            schedule.returned(name)
    assert looked_at < len(old) / 10


def test_forgotten_files_do_not_slow_down_others(schedule: PollSchedule) -> None:
    for number in range(20_000):
        schedule.add(str(number), NOW + 0.02, NOW)
    for number in range(20_000):
        schedule.forget(str(number))
    schedule.add("a", NOW + 0.5, NOW)
    assert schedule.take_due(NOW + 0.51) == ["a"]


class AnyOrder(RuleBasedStateMachine):
    """Files come, are looked at, come back and are forgotten in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule = PollSchedule()
        self.now = NOW
        self.awaited: set[str] = set()
        self.under_way: set[str] = set()
        self.count = 0

    @rule(pause=st.sampled_from([-1.0, 0.0, 0.02, 0.5, 10.0]), count=st.integers(1, 5))
    def add(self, pause: float, count: int) -> None:
        for _ in range(count):
            self.count += 1
            self.schedule.add(str(self.count), self.now + pause, self.now)
            self.awaited.add(str(self.count))

    @rule(seconds=st.sampled_from([0.0, 0.02, 1.0, 20.0]))
    def look(self, seconds: float) -> None:
        self.now += seconds
        taken = self.schedule.take_due(self.now)
        assert len(set(taken)) == len(taken)
        assert set(taken) <= self.awaited
        self.awaited.difference_update(taken)
        self.under_way.update(taken)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), again=st.booleans())
    def come_back(self, data: st.DataObject, again: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.under_way)))
        self.under_way.remove(name)
        self.schedule.returned(name)
        if again:
            self.schedule.add(name, self.now + 0.1, self.now)
            self.awaited.add(name)

    @precondition(lambda self: self.awaited or self.under_way)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.awaited | self.under_way)))
        self.schedule.forget(name)
        self.awaited.discard(name)
        self.under_way.discard(name)

    @invariant()
    def looks_are_few_and_wanted_whenever_one_is_possible(self) -> None:
        assert len(self.under_way) <= POLLS_AT_A_TIME
        if self.awaited and len(self.under_way) < POLLS_AT_A_TIME:
            assert self.schedule.next is not None

    def teardown(self) -> None:
        """Every awaited file is looked at in the end, once."""
        for name in self.under_way:
            self.schedule.returned(name)
        while (now := self.schedule.next) is not None:
            for name in self.schedule.take_due(now):
                self.awaited.remove(name)
                self.schedule.returned(name)
        assert not self.awaited


AnyOrder.TestCase.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
TestLooksInAnyOrder = AnyOrder.TestCase
