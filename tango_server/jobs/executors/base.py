"""The interface of an executor, which runs conversions somewhere."""

from collections.abc import Callable
from typing import Literal, Protocol

from tango_server.jobs.executors.worker import Failure, Task
from tango_server.messages import FrameReport


class ExecutorUnavailableError(RuntimeError):
    """No worker can run tasks at the moment; not the frame's fault: try again later, without counting the attempt."""


class AttemptLostError(ExecutorUnavailableError):
    """The connection to the worker was lost: the task may have started, and may still be running."""


Kind = Literal["process", "dask"]
Result = FrameReport | Failure | BaseException
"""The result of a task: a report, a failure, `ExecutorUnavailableError`, or the exception of a crashed attempt.

`TimeoutError` means that the attempt took too long.
"""

Done = Callable[[Result], None]


class Executor(Protocol):
    """Runs tasks and reports the result of each from its own thread.

    A task reported as lost or timed out may still be running. The next attempt gets the same `job`, so that it
    recognises an output of the previous one.
    """

    @property
    def problem(self) -> str:
        """Why no tasks can be run at the moment; empty if no problem is known."""

    def start(self, task: Task, done: Done) -> None:
        """Run `task`; call `done` once, unless the executor is closed first. `done` may be called before this returns.

        Raises
        ------
        IndexError
            if the maximum number of tasks is already running.

        """

    def close(self, timeout: float) -> None:
        """Let running tasks finish for at most `timeout` seconds, then abandon them; leave no process behind."""
