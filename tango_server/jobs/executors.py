"""What an executor is, and how to get one: the narrow interface behind which conversions run, wherever that is."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal, Protocol

from tango_server.jobs.worker import Failure, Task
from tango_server.messages import FrameReport


class ExecutorUnavailableError(RuntimeError):
    """Nobody can run tasks at present, by no fault of the frame: try again later, and don't count the attempt."""


class AttemptLostError(ExecutorUnavailableError):
    """The connection with whoever had the task was lost: it may have begun, and may go on."""


Kind = Literal["process", "thread", "dask"]
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


def require_packages(kind: Kind) -> None:
    """Raise `ImportError` with what to do if an executor needs a package that is not installed."""
    if kind == "dask" and find_spec("distributed") is None:
        raise ImportError(
            "executor: found \"dask\", and the package 'distributed' is not installed. "
            "Install it with: pip install 'petif-bluesky[dask]', or set executor to \"process\".",
            name="distributed",
        )


def make_executor(kind: Kind, *, workers: int, time_limit: float, scheduler: str | None = None) -> Executor:
    """Return an executor that runs at most `workers` tasks at a time, each for at most `time_limit` seconds.

    `scheduler` is the address of a Dask scheduler, such as `tcp://host:8786`; only `dask` needs it.

    Raises
    ------
    ValueError
        if `dask` is asked for without a scheduler, or with an address that is none.
    ImportError
        if `dask` is asked for and not installed.

    """
    match kind:
        case "process":
            from tango_server.jobs.processes import ProcessExecutor  # noqa: PLC0415 - each kind needs its own libraries

            return ProcessExecutor(workers, time_limit)
        case "thread":
            from tango_server.jobs.threads import ThreadExecutor  # noqa: PLC0415

            return ThreadExecutor(workers, time_limit)
        case "dask":
            if not scheduler:
                raise ValueError(
                    'the executor "dask" needs the address of a scheduler; found none. '
                    "Set dask_scheduler, for example to tcp://host:8786."
                )
            require_packages(kind)
            from tango_server.jobs.cluster import DaskExecutor  # noqa: PLC0415

            return DaskExecutor(scheduler, workers, time_limit)
