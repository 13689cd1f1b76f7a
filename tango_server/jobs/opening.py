"""From settings to a running service: the ledger, the worker processes, the runner."""

from collections.abc import Callable
from contextlib import ExitStack

from tango_server.host_limits import fitting_workers
from tango_server.jobs.executors import make_executor
from tango_server.jobs.runner import JobRunner, open_database
from tango_server.settings import Settings


def open_runner(settings: Settings, changed: Callable[[JobRunner], None]) -> JobRunner:
    """Return a running service. `changed` is called, from a thread of it, when its numbers have changed.

    Raises
    ------
    LedgerError
        if the ledger can't be opened; nothing is left running.

    """
    settings = settings.model_copy(update={"numworkers": fitting_workers(settings.numworkers)})
    database = open_database(settings)
    with ExitStack() as undo:
        undo.callback(database.close)
        executor = make_executor(
            settings.executor,
            workers=settings.numworkers,
            time_limit=settings.time_limit,
            scheduler=settings.dask_scheduler,
        )
        undo.callback(executor.close, 0.0)
        runner = JobRunner(settings, database, executor, changed)
        undo.pop_all()
    return runner
