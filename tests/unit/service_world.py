"""The world of a job service on a real ledger: what its property tests share, whatever jobs they give to it."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tango_server.jobs.job import Job
from tango_server.jobs.ledger.database import Database
from tango_server.jobs.ledger.ledger import Ledger
from tango_server.jobs.state_machine import backlog
from tango_server.jobs.state_machine.events import Accepted, Event, Instant, Instruction, TimePassed
from tango_server.jobs.state_machine.machine import JobStateMachine
from tango_server.jobs.state_machine.rules import ServiceRules

SMALL_WINDOW = 4


class ServiceWorld(RuleBasedStateMachine):
    """Does what the service says as the engine does it, and answers when it likes. `open` it once it has `rules`."""

    rules: ServiceRules

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(backlog, "WINDOW", SMALL_WINDOW)
        self.folder = tempfile.TemporaryDirectory()
        self.database = Database(Path(self.folder.name) / "ledger.sqlite")
        self.now = 1000.0
        self.mtime = 0

    def open(self) -> None:
        """Start a server on the ledger. What a killed one knew is gone, its conversions with it."""
        self.ledger = Ledger(self.database)
        self.service = JobStateMachine(self.rules)
        self.inbox: list[Event] = []
        self.looks: list[Job] = []
        if pending := self.ledger.pending():
            self.send(Accepted(pending))

    def teardown(self) -> None:
        try:
            if hasattr(self, "service"):
                self.come_to_an_end()
        finally:
            self.database.close()
            self.folder.cleanup()
            self.patch.undo()

    def come_to_an_end(self) -> None:
        """Do all that is left to do, so that every job ends."""
        raise NotImplementedError

    def do(self, step: Instruction) -> None:
        """Do one thing that the service says."""
        raise NotImplementedError

    def send(self, event: Event) -> None:
        for step in self.service.handle(event, Instant(self.now, 1.7e9 + self.now)):
            self.do(step)

    def hear(self) -> None:
        """Let the service hear of what was done first."""
        self.send(self.inbox.pop(0))

    @precondition(lambda self: self.inbox)
    @rule(count=st.integers(1, 9))
    def hear_some(self, count: int) -> None:
        for _ in range(min(count, len(self.inbox))):
            self.hear()

    @rule(seconds=st.sampled_from([0.0, 0.1, 3.0, 20.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.now += seconds
        self.send(TimePassed())

    @invariant()
    def the_queue_is_as_long_as_the_ledger_says(self) -> None:
        if hasattr(self, "service") and not self.inbox:
            assert self.service.snapshot(Instant(self.now, 1.7e9)).queue_length == self.ledger.pending()
