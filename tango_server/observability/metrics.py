"""The optional HTTP endpoint for Prometheus."""

from collections.abc import Callable
from threading import Thread
from typing import TYPE_CHECKING, Any

from tango_server.jobs.state_machine.snapshot import Snapshot

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer

_CLIENT_TIMEOUT = 10.0  # s


class MetricsError(Exception):
    """The endpoint can't be started; the server runs without it."""


class Metrics:
    """A running endpoint, one per server start or Init."""

    def __init__(self, host: str, server: "WSGIServer", thread: Thread) -> None:
        self._host = host
        self._server = server
        self._thread = thread

    @property
    def address(self) -> str:
        """The URL of the metrics."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._server.server_port}/metrics"

    def close(self) -> None:
        """Stop the thread and close the port, within half a second."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def start_metrics(host: str, port: int, *, numbers: Callable[[], Snapshot], state: Callable[[], str]) -> Metrics:
    """Serve the metrics over HTTP in a separate thread.

    Parameters
    ----------
    host: address to listen on; 127.0.0.1 means this machine only
    port: TCP port
    numbers: returns the current numbers; called from a thread at every scrape
    state: returns the name of the Tango state; called from the same thread

    Raises
    ------
    MetricsError
        if prometheus-client is not installed, or the port is in use.

    """
    try:
        from prometheus_client import CollectorRegistry, start_http_server  # noqa: PLC0415 - an optional extra

        from tango_server.observability.collector import ServiceCollector  # noqa: PLC0415 - imports the extra
    except ModuleNotFoundError as error:
        raise MetricsError(
            f"Cannot serve metrics on metrics_port {port}: the package {error.name!r} is not installed. "
            "Install it with: pip install 'petif-bluesky[metrics]', or set metrics_port to 0."
        ) from error
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ServiceCollector(numbers, state))
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise MetricsError(
            f"Cannot serve metrics on {host}:{port}: {error.strerror}. "
            "Set metrics_host to an address of this machine and metrics_port to a free port, then call Init."
        ) from error
    handler: Any = server.RequestHandlerClass
    server.RequestHandlerClass = type("MetricsHandler", (handler,), {"timeout": _CLIENT_TIMEOUT})
    return Metrics(host, server, thread)
