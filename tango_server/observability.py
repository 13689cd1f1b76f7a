"""What lets people watch a running server: its log and its metrics, by its settings."""

import logging
from collections.abc import Callable

from tango_server.jobs.vocabulary import Snapshot
from tango_server.logs import Logging, LogStream, start_logging
from tango_server.metrics import Metrics, MetricsError, start_metrics
from tango_server.settings import Settings

_log = logging.getLogger(__name__)
_FOLDER = "logs"


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
        self, settings: Settings, stream: LogStream, numbers: Callable[[], Snapshot], state: Callable[[], str]
    ) -> None:
        self._lacks = ""
        self._logging = _start_logging(settings, stream)
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


def _start_logging(settings: Settings, stream: LogStream) -> Logging:
    return start_logging(
        settings.state_dir / _FOLDER,
        level=settings.log_level,
        max_bytes=settings.log_bytes,
        files=settings.log_files,
        stream=stream,
    )
