"""Where the page may be opened from."""

import ipaddress
import socket
from collections.abc import Collection
from typing import Any

import psutil
from tornado.httputil import HTTPServerRequest
from tornado.routing import Rule
from tornado.web import ErrorHandler

_LOOPBACK = ("127.0.0.1", "localhost")
_EVERYWHERE = "0.0.0.0"  # noqa: S104 - recognised, not listened at


def is_loopback(host: str) -> bool:
    """Whether what listens at `host` can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def shown_name(host: str) -> str:
    """Return the name by which people open a page that listens at `host`; one of `names_of(host)`."""
    if is_loopback(host):
        return "127.0.0.1"
    return socket.gethostname() if host == _EVERYWHERE else host


def names_of(host: str) -> tuple[str, ...]:
    """Return the names by which browsers may call a page that listens at `host`.

    A browser sends the name that stands in its address line with each connection, so that a page of somebody else that
    it shows can't talk to this one.

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
    """Matches, as a matcher of Tornado, what asks for none of these hosts (with their ports)."""

    def __init__(self, known: Collection[str]) -> None:
        self._known = {name.lower() for name in known}

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        return None if request.headers.get("Host", "").lower() in self._known else {}


def allow_only(known: Collection[str]) -> Rule:
    """Return the rule that refuses, before all others, every request for another host than these.

    A foreign name that leads to this address (DNS rebinding) makes a foreign page and this one the same origin for a
    browser: Host is then all that tells them apart.
    """
    return Rule(_OtherHost(known), ErrorHandler, {"status_code": 403})
