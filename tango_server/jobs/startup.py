"""From settings to a running service: the ledger, the worker processes, the runner."""

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


def open_database(settings: Settings) -> Database:
    """Return the open ledger file of these settings; raise `LedgerError` if it can't be used."""
    with _in_words(settings):
        return Database(settings.ledger_path)


def require_state_dir(settings: Settings) -> None:
    """Raise `LedgerError` if the state folder can't be written, or another server uses it; nothing is changed."""
    with _in_words(settings):
        try:
            require_free(settings.ledger_path)
        except sqlite3.OperationalError as error:
            raise LedgerError(
                f"{settings.state_dir}: another server uses this state folder. End that one, or choose another folder "
                "with --state-dir."
            ) from error


@contextmanager
def _in_words(settings: Settings) -> Iterator[None]:
    try:
        yield
    except LedgerError:
        raise
    except OSError as error:
        raise LedgerError(
            f"{settings.ledger_path}: the ledger can't be opened ({error.strerror or error}); expected a folder that "
            "this user may write. Correct state_dir or its permissions."
        ) from error
