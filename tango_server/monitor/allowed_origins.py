"""The host names under which the page may be opened."""

import ipaddress
import socket
from collections.abc import Collection
from typing import Any

import psutil
from tornado.httputil import HTTPServerRequest
from tornado.routing import Rule
from tornado.web import ErrorHandler

_LOOPBACK = ("127.0.0.1", "localhost")
_EVERYWHERE = "0.0.0.0"  # noqa: S104 - only compared


def is_loopback(host: str) -> bool:
    """Whether a server on `host` can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def shown_name(host: str) -> str:
    """Return the name to show in the URL of a page served on `host`; one of `names_of(host)`."""
    if is_loopback(host):
        return "127.0.0.1"
    return socket.gethostname() if host == _EVERYWHERE else host


def names_of(host: str) -> tuple[str, ...]:
    """Return the names by which browsers may request a page served on `host`.

    A browser sends the name in its address bar with each connection, so that a page from another site can't connect to
    this one.

    >>> names_of("127.0.0.1")
    ('127.0.0.1', 'localhost')
    """
    if is_loopback(host):
        return tuple(dict.fromkeys((*_LOOPBACK, host)))
    own = (socket.gethostname().lower(), socket.getfqdn().lower())  # as browsers write them
    if host != _EVERYWHERE:
        return tuple(dict.fromkeys((host, *own)))
    numbers = (
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == socket.AF_INET
    )
    return tuple(dict.fromkeys((*_LOOPBACK, *own, *numbers)))


class _OtherHost:
    """A Tornado matcher for requests to any host (with port) other than these."""

    def __init__(self, known: Collection[str]) -> None:
        self._known = {name.lower() for name in known}

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        return None if request.headers.get("Host", "").lower() in self._known else {}


def allow_only(known: Collection[str]) -> Rule:
    """Return the rule that refuses every request to a host other than these; must come first.

    With DNS rebinding, a foreign name resolves to this address, and to a browser the foreign page and this one have the
    same origin: only the Host header differs.
    """
    return Rule(_OtherHost(known), ErrorHandler, {"status_code": 403})
