"""Starts the service from the settings: the ledger, the worker processes, the runner."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tango_server.host_limits import fitting_workers
from tango_server.jobs.executors.factory import make_executor
from tango_server.jobs.ledger.database import Database, LedgerError
from tango_server.jobs.runner import JobRunner
from tango_server.settings import Settings
from tango_server.sqlite.sole_owner import require_free


def open_runner(settings: Settings, changed: Callable[[JobRunner], None]) -> JobRunner:
    """Return a running service. `changed` is called from one of its threads when its numbers have changed.

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


def open_database(settings: Settings) -> Database:
    """Open the ledger file of these settings; raise `LedgerError` if it can't be used."""
    with _ledger_errors(settings):
        return Database(settings.ledger_path)


def require_state_dir(settings: Settings) -> None:
    """Raise `LedgerError` if the state folder can't be written, or another server uses it; nothing is changed."""
    with _ledger_errors(settings):
        try:
            require_free(settings.ledger_path)
        except sqlite3.OperationalError as error:
            raise LedgerError(
                f"{settings.state_dir}: cannot use this state folder: another server uses it. Stop that server, or "
                "choose another folder with --state-dir."
            ) from error


@contextmanager
def _ledger_errors(settings: Settings) -> Iterator[None]:
    try:
        yield
    except LedgerError:
        raise
    except OSError as error:
        raise LedgerError(
            f"{settings.ledger_path}: cannot open the ledger: {error.strerror or error}. "
            "Correct state_dir or its permissions."
        ) from error
