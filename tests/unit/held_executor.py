"""An executor that does nothing but what a test tells it to, and a way to wait for what the service tells."""

import queue
import threading
from collections.abc import Callable

from tango_server.jobs.executors.base import Done, Result
from tango_server.jobs.executors.worker import Task
from tango_server.messages import FrameReport

PATIENCE = 30.0


def report_of(task: Task) -> FrameReport:
    """Return the report that a worker gives if all goes well."""
    return FrameReport(
        job_id=task.job.job_id,
        source=str(task.job.source),
        output=str(task.job.output),
        outcome="converted",
        conversion_time=0.25,
        finished=1.7e9,
    )


class HeldExecutor:
    """Keeps every task until the test ends it. `at_close` is called when the service closes it."""

    def __init__(self, at_close: Callable[["HeldExecutor"], None] = lambda _: None) -> None:
        self.begun: queue.SimpleQueue[tuple[Task, Done]] = queue.SimpleQueue()
        self._at_close = at_close

    problem = ""

    def start(self, task: Task, done: Done) -> None:
        self.begun.put((task, done))

    def close(self, timeout: float) -> None:
        assert timeout > 0
        self._at_close(self)

    def end_next(self, result: Callable[[Task], Result] = report_of) -> Task:
        """Wait for the next task that was started, and end it."""
        task, done = self.begun.get(timeout=PATIENCE)
        done(result(task))
        return task


class Bell:
    """Rings whenever the numbers have changed."""

    def __init__(self) -> None:
        self._changed = threading.Condition()

    def ring(self, *_: object) -> None:
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, true: Callable[[], bool], what: str) -> None:
        with self._changed:
            assert self._changed.wait_for(true, PATIENCE), f"it never came to that: {what}"
