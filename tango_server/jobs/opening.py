"""From settings to a running service: the ledger, the worker processes, the runner."""

from collections.abc import Callable
from contextlib import ExitStack

from tango_server.jobs.executors import ProcessExecutor
from tango_server.jobs.ledger import Ledger
from tango_server.jobs.runner import JobRunner
from tango_server.settings import Settings


def open_runner(settings: Settings, changed: Callable[[JobRunner], None]) -> JobRunner:
    """Return a running service. `changed` is called, from a thread of it, when its numbers have changed.

    Raises
    ------
    OSError
        if the ledger can't be opened; nothing is left running.

    """
    ledger = Ledger(settings.ledger_path)
    with ExitStack() as undo:
        undo.callback(ledger.close)
        executor = ProcessExecutor(settings.numworkers, settings.time_limit)
        undo.callback(executor.close, 0.0)
        runner = JobRunner(settings, ledger, executor, changed)
        undo.pop_all()
    return runner
