"""What one start or Init of a server brings up, and takes down: settings, log, metrics, job service, folder watch."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from tango_server.jobs.ledger.database import LedgerError
from tango_server.jobs.runner import JobRunner
from tango_server.jobs.startup import open_runner
from tango_server.jobs.state_machine.events import Snapshot
from tango_server.jobs.state_machine.server_state import Word, server_state
from tango_server.jobs.watch.folder_watch import FolderWatch, open_watch
from tango_server.observability.logs import Logging
from tango_server.observability.metrics import Metrics, MetricsError, start_metrics
from tango_server.recipe import Recipe
from tango_server.settings import ConfigurationError, Settings
from tango_server.text import explain

_log = logging.getLogger(__name__)


_LOG_FOLDER = "logs"
_TURNS = 3
_TURN_PATIENCE = 2.0
_CLOSE_PATIENCE = 10.0


class NotServingError(RuntimeError):
    """There is no job service; the message says why."""


class NoTurnError(RuntimeError):
    """Too many calls that take long are being answered."""


class Application:
    """What runs from one Init to the next; before `open` and after `close` it is there and does nothing."""

    def __init__(self) -> None:
        self._fault = ""
        self._settings: Settings | None = None
        self._observability: Observability | None = None
        self._runner: JobRunner | None = None
        self._watch: FolderWatch | None = None
        self._turns = threading.BoundedSemaphore(_TURNS)

    def open(self, settings: Callable[[], Settings], stream: logging.Handler, changed: Callable[[], None]) -> None:
        """Bring everything up; what is wrong with the settings becomes a fault in words.

        `changed` is called, from a thread, when the numbers have changed. `stream` takes the messages, too.
        """
        try:
            self._settings = settings()
            self._observability = Observability(self._settings, stream, lambda: self.numbers, lambda: self.state()[0])
            self._runner = open_runner(self._settings, lambda _: changed())
            self._watch = open_watch(self._settings, self._runner)
        except ValidationError as error:
            self._fault = (
                f"The configuration is wrong: {explain(error, Settings.model_fields)}. Correct it, then call Init."
            )
        except (ConfigurationError, LedgerError, ImportError) as error:
            self._fault = f"{error} Then call Init."
        if self._fault:
            _log.error("%s", self._fault)

    def close(self) -> None:
        """Let running conversions finish and take everything down; what is not finished stays on the ledger."""
        if self._watch:
            self._watch.close()
        if self._runner:
            for _ in range(_TURNS):
                self._turns.acquire(timeout=_CLOSE_PATIENCE)  # never given back: the next Init has turns of its own
            self._runner.close()
            self._runner = None
        if self._observability:
            self._observability.close()

    @property
    def service(self) -> JobRunner:
        """The job service; raises `NotServingError` if there is none."""
        runner = self._runner
        if runner is None:
            raise NotServingError(self._fault or "the server is being initialised; try again")
        return runner

    @contextmanager
    def in_turn(self) -> Iterator[JobRunner]:
        """Yield the job service for a call that takes long; a few at a time, and `close` waits for them.

        Raises
        ------
        NoTurnError
            if others take too long.
        NotServingError
            if there is no service.
        """
        if not self._turns.acquire(timeout=_TURN_PATIENCE):
            raise NoTurnError(
                f"{_TURNS} long calls (GetReports, ListFolder, FindMissing) are being answered, and none ended within "
                f"{_TURN_PATIENCE:g} s. Call again, and ask for less at once."
            )
        try:
            yield self.service
        finally:
            self._turns.release()

    @property
    def recipe(self) -> Recipe | None:
        """The recipe for requests that bring none; None if nobody could go by it."""
        runner = self._runner
        return runner.recipe if runner else None

    @property
    def numbers(self) -> Snapshot:
        """The numbers now."""
        runner = self._runner
        return runner.snapshot if runner else Snapshot()

    @property
    def workers(self) -> int:
        """Conversions at a time."""
        return self._settings.numworkers if self._settings else 0

    def state(self) -> tuple[Word, str]:
        """Return the state and what to tell people."""
        runner = self._runner
        word, status = server_state(self.numbers, self._fault or (runner.fault or runner.trouble if runner else ""))
        if self._watch and self._watch.trouble:
            status = f"{status}. {self._watch.trouble}"
        return word, self._observability.completed(status) if self._observability else status


class Observability:
    """The log and the metrics of one server start or Init.

    Neither keeps a server from starting; Status is to tell what is missing.

    Parameters
    ----------
    settings: say where and how much
    stream: takes the messages, too
    numbers: gives the numbers of the service now; called from a thread
    state: gives the word of the Tango state; called the same way

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
        """Return the status with what is missing here, and the remedy."""
        return f"{status.rstrip('.')}. {self._lacks}" if self._lacks else status

    def close(self) -> None:
        """Close the port, write what was logged until now, and end; again does nothing."""
        if self._metrics:
            self._metrics.close()
        self._logging.close()
