"""What a server runs between one Init and the next: settings, log, metrics, job service, folder watch."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from tango_server.jobs.ledger.database import LedgerError
from tango_server.jobs.runner import JobRunner
from tango_server.jobs.startup import open_runner
from tango_server.jobs.state_machine.server_state import StateName, server_state
from tango_server.jobs.state_machine.snapshot import Snapshot
from tango_server.jobs.watch.folder_watch import FolderWatch, open_watch
from tango_server.observability.logs import Logging
from tango_server.observability.metrics import Metrics, MetricsError, start_metrics
from tango_server.recipe import Recipe
from tango_server.settings import ConfigurationError, Settings
from tango_server.text import explain

_log = logging.getLogger(__name__)


_LOG_FOLDER = "logs"
_TURNS = 3
_TURN_TIMEOUT = 2.0  # s
_CLOSE_TIMEOUT = 10.0  # s


class NotServingError(RuntimeError):
    """The job service is not running; the message says why."""


class NoTurnError(RuntimeError):
    """Too many long calls are being answered."""


class Application:
    """Everything that runs from one Init to the next; does nothing before `open` and after `close`."""

    def __init__(self) -> None:
        self._fault = ""
        self._settings: Settings | None = None
        self._observability: Observability | None = None
        self._runner: JobRunner | None = None
        self._watch: FolderWatch | None = None
        self._turns = threading.BoundedSemaphore(_TURNS)

    def open(self, settings: Callable[[], Settings], stream: logging.Handler, changed: Callable[[], None]) -> None:
        """Start everything; wrong settings become a fault with a message.

        `changed` is called from a thread when the numbers have changed. `stream` receives the log messages, too.
        """
        try:
            self._settings = settings()
            self._observability = Observability(self._settings, stream, lambda: self.numbers, lambda: self.state()[0])
            self._runner = open_runner(self._settings, lambda _: changed())
            self._watch = open_watch(self._settings, self._runner)
        except ValidationError as error:
            self._fault = f"Invalid configuration: {explain(error, Settings.model_fields)}. Correct it, then call Init."
        except (ConfigurationError, LedgerError, ImportError) as error:
            self._fault = f"{error} Then call Init."
        if self._fault:
            _log.error("%s", self._fault)

    def close(self) -> None:
        """Let running conversions finish and stop everything; unfinished jobs stay on the ledger."""
        if self._watch:
            self._watch.close()
        if self._runner:
            for _ in range(_TURNS):
                self._turns.acquire(timeout=_CLOSE_TIMEOUT)  # never released: the next Init has its own
            self._runner.close()
            self._runner = None
        if self._observability:
            self._observability.close()

    @property
    def service(self) -> JobRunner:
        """The job service; raises `NotServingError` if it is not running."""
        runner = self._runner
        if runner is None:
            raise NotServingError(self._fault or "The server is initialising. Try again in a few seconds.")
        return runner

    @contextmanager
    def in_turn(self) -> Iterator[JobRunner]:
        """Yield the job service for a long call; a few at a time, and `close` waits for them.

        Raises
        ------
        NoTurnError
            if the calls before it take too long.
        NotServingError
            if the job service is not running.
        """
        if not self._turns.acquire(timeout=_TURN_TIMEOUT):
            raise NoTurnError(
                f"The server is busy: {_TURNS} long calls (GetReports, ListFolder, FindMissing) are running and none "
                f"finished within {_TURN_TIMEOUT:g} s. Call again, and request less at once."
            )
        try:
            yield self.service
        finally:
            self._turns.release()

    @property
    def recipe(self) -> Recipe | None:
        """The recipe for requests without one; None while the job service is not running."""
        runner = self._runner
        return runner.recipe if runner else None

    @property
    def numbers(self) -> Snapshot:
        """The current numbers."""
        runner = self._runner
        return runner.snapshot if runner else Snapshot()

    @property
    def workers(self) -> int:
        """Number of parallel conversions."""
        return self._settings.numworkers if self._settings else 0

    def state(self) -> tuple[StateName, str]:
        """Return the state and the status message."""
        runner = self._runner
        name, status = server_state(self.numbers, self._fault or (runner.fault or runner.problem if runner else ""))
        if self._watch and self._watch.problem:
            status = f"{status}. {self._watch.problem}"
        return name, self._observability.completed(status) if self._observability else status


class Observability:
    """The log and the metrics of one server start or Init.

    A failure of either does not stop the server from starting; Status reports it.

    Parameters
    ----------
    settings: where and how much to log and measure
    stream: receives the log messages, too
    numbers: returns the current numbers of the service; called from a thread
    state: returns the name of the Tango state; called from the same thread

    """

    def __init__(
        self, settings: Settings, stream: logging.Handler, numbers: Callable[[], Snapshot], state: Callable[[], str]
    ) -> None:
        self._lacks = ""
        self._logging = Logging(
            settings.state_dir / _LOG_FOLDER,
            level=settings.log_level,
            max_bytes=settings.log_bytes,
            files=settings.log_files,
            stream=stream,
        )
        self._metrics: Metrics | None = None
        if not settings.metrics_port:
            return
        try:
            self._metrics = start_metrics(settings.metrics_host, settings.metrics_port, numbers=numbers, state=state)
        except MetricsError as error:
            self._lacks = str(error)
            _log.error("%s", error)

    def completed(self, status: str) -> str:
        """Return the status, with what is missing here and what to do about it."""
        return f"{status.rstrip('.')}. {self._lacks}" if self._lacks else status

    def close(self) -> None:
        """Close the port, flush the log and stop; calling it again does nothing."""
        if self._metrics:
            self._metrics.close()
        self._logging.close()
