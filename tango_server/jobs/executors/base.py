"""What an executor is: the narrow interface behind which conversions run, wherever that is."""

from collections.abc import Callable
from typing import Literal, Protocol

from tango_server.jobs.executors.worker import Failure, Task
from tango_server.messages import FrameReport


class ExecutorUnavailableError(RuntimeError):
    """Nobody can run tasks at present, by no fault of the frame: try again later, and don't count the attempt."""


class AttemptLostError(ExecutorUnavailableError):
    """The connection with whoever had the task was lost: it may have begun, and may go on."""


Kind = Literal["process", "dask"]
Result = FrameReport | Failure | BaseException
"""What becomes of a task: a report, a reason, `ExecutorUnavailableError`, or the exception of an attempt that crashed.

`TimeoutError` tells that the attempt took too long.
"""

Done = Callable[[Result], None]


class Executor(Protocol):
    """Runs tasks elsewhere and tells what became of each, from a thread of its own.

    A task that is told as lost or late may still be running somewhere. Whoever starts its job again gives it the same
    `job`: that is how one attempt knows what the other has made.
    """

    @property
    def trouble(self) -> str:
        """Why nobody can run tasks at present, as far as is known; empty: nothing is known against it."""

    def start(self, task: Task, done: Done) -> None:
        """Run `task`; call `done` once, unless the executor is closed before. It may be called before this returns.

        Raises
        ------
        IndexError
            if as many tasks as were agreed are running already.

        """

    def close(self, patience: float) -> None:
        """Let running tasks finish for at most `patience` seconds, then give them up; leave no process."""
