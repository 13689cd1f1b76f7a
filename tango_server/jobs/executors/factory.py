"""Creates the executor of the settings; imports its libraries only then."""

from importlib.util import find_spec

from tango_server.jobs.executors import worker
from tango_server.jobs.executors.base import Executor, Kind


def require_packages(kind: Kind) -> None:
    """Raise `ImportError` if an executor needs a package that is not installed."""
    if kind == "dask" and find_spec("distributed") is None:
        raise ImportError(
            "executor \"dask\" needs the package 'distributed', which is not installed. "
            "Install it with: pip install 'petif-bluesky[dask]', or set executor to \"process\".",
            name="distributed",
        )


def make_executor(kind: Kind, *, workers: int, time_limit: float, scheduler: str | None = None) -> Executor:
    """Return an executor that runs at most `workers` tasks at a time, each for at most `time_limit` seconds.

    `scheduler` is the address of a Dask scheduler, such as `tcp://host:8786`; only `dask` needs it.

    Raises
    ------
    ValueError
        if the scheduler of `dask` is missing, or its address is invalid.
    ImportError
        if `dask` is not installed.

    """
    match kind:
        case "process":
            from tango_server.jobs.executors.processes import ProcessExecutor  # noqa: PLC0415 - each kind needs its own libraries

            return ProcessExecutor(workers, time_limit, worker.run, frames=lambda task: task.frames)
        case "dask":
            if not scheduler:
                raise ValueError(
                    'executor "dask" needs the address of a scheduler. Set dask_scheduler, for example to tcp://host:8786.'
                )
            require_packages(kind)
            from tango_server.jobs.executors.dask_cluster import DaskExecutor  # noqa: PLC0415

            return DaskExecutor(scheduler, workers, time_limit)
