"""The optional HTTP endpoint that Prometheus reads the numbers of the service from."""

from collections.abc import Callable
from threading import Thread
from typing import TYPE_CHECKING, Any

from tango_server.jobs.state_machine.events import Snapshot

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer

_CLIENT_PATIENCE = 10.0


class MetricsError(Exception):
    """Why there is no endpoint, and what to do. The server goes on without it."""


class Metrics:
    """A running endpoint: one per server start or Init."""

    def __init__(self, host: str, server: "WSGIServer", thread: Thread) -> None:
        self._host = host
        self._server = server
        self._thread = thread

    @property
    def address(self) -> str:
        """The URL to read."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._server.server_port}/metrics"

    def close(self) -> None:
        """End the thread and close the port, within half a second."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def start_metrics(host: str, port: int, *, numbers: Callable[[], Snapshot], state: Callable[[], str]) -> Metrics:
    """Serve the numbers over HTTP, from a thread of its own.

    Parameters
    ----------
    host: address of this machine to listen at; 127.0.0.1 is this machine only
    port: TCP port
    numbers: gives the numbers now; called from a thread, at every scrape
    state: gives the word of the Tango state; called the same way

    Raises
    ------
    MetricsError
        if prometheus-client is not installed, or the port can't be listened at.

    """
    try:
        from prometheus_client import CollectorRegistry, start_http_server  # noqa: PLC0415 - an optional extra

        from tango_server.observability.collector import ServiceCollector  # noqa: PLC0415 - imports the extra
    except ModuleNotFoundError as error:
        raise MetricsError(
            f"There are no metrics: metrics_port is {port}, but the package {error.name!r} is not installed. "
            "Install it with: pip install 'petif-bluesky[metrics]', or set metrics_port to 0."
        ) from error
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ServiceCollector(numbers, state))
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise MetricsError(
            f"There are no metrics: {host}:{port} can't be listened at ({error.strerror}). "
            "Set metrics_host to an address of this machine and metrics_port to a free port, then call Init."
        ) from error
    handler: Any = server.RequestHandlerClass
    server.RequestHandlerClass = type("PatientHandler", (handler,), {"timeout": _CLIENT_PATIENCE})
    return Metrics(host, server, thread)
