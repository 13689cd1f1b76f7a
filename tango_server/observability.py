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

    Neither keeps a server from starting. `lacks` is a sentence for Status about what is missing, empty if nothing is.

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
        self.lacks = ""
        self._logging = _start_logging(settings, stream)
        self._metrics: Metrics | None = None
        if not settings.metrics_port:
            return
        try:
            self._metrics = start_metrics(settings.metrics_host, settings.metrics_port, numbers=numbers, state=state)
        except MetricsError as error:
            self.lacks = str(error)
            _log.error("%s", error)

    def close(self) -> None:
        """Close the port, write what was logged until now, and end."""
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
