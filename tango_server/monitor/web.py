"""The web server of the monitor page."""

import logging
import secrets
import signal
from collections.abc import Callable
from contextlib import closing
from typing import Any

import panel as pn
from tornado.websocket import WebSocketClosedError

from tango_server.addresses import free_port
from tango_server.monitor.allowed_origins import allow_only, names_of
from tango_server.monitor.image_loader import Pictures
from tango_server.monitor.page import MonitorPage
from tango_server.monitor.poller import Watch
from tango_server.monitor.sharing import Shared

_TITLE = "petif monitor"
_FROZEN = "This page is frozen: petif monitor has stopped or does not answer. Start it again, then reload the page."


def serve(address: str, *, host: str, port: int, read_only: bool, ready: Callable[[int], None]) -> None:
    """Serve the page of the server at `address` until Ctrl-C or SIGTERM.

    `port` 0 chooses a free one; `ready` is called with it.

    Raises
    ------
    OSError
        if the port is in use, or `host` is not an address of this machine.

    """
    _ignore_closed_browsers()
    pn.extension(notifications=True, disconnect_notification=_FROZEN)
    port = port or free_port(host)
    with closing(Shared(Watch(address), Pictures())) as shared:
        names = [f"{name}:{port}" for name in names_of(host)]
        server = pn.serve(
            lambda: _document(shared, read_only=read_only),
            address=host,
            port=port,
            websocket_origin=names,
            sign_sessions=True,  # requests of a page carry its token
            secret_key=secrets.token_bytes(32),
            show=False,
            start=False,
            verbose=False,
            title=_TITLE,
        )
        server._tornado.default_router.rules.insert(0, allow_only(names))  # noqa: SLF001 - Bokeh has no public way
        loop = server.io_loop.asyncio_loop
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(server.io_loop.stop))
        server.start()
        try:
            ready(port)
            server.io_loop.start()
        finally:
            server.stop()


def _ignore_closed_browsers() -> None:
    """Suppress log messages of Bokeh and asyncio about browsers that were closed during a message."""
    logging.getLogger("bokeh.server.views.ws").setLevel(logging.ERROR)
    logging.getLogger("asyncio").addFilter(
        lambda record: not (record.exc_info and isinstance(record.exc_info[1], WebSocketClosedError))
    )


def _document(shared: Shared, *, read_only: bool) -> Any:
    page = MonitorPage(shared, read_only=read_only)
    page.follow()
    template = pn.template.BootstrapTemplate(
        title=f"{_TITLE} (read only)" if read_only else _TITLE, busy_indicator=None
    )
    template.main.append(page.layout)
    return template
