"""Tango addresses of servers without a database, and free ports for them."""

import socket

DEFAULT_PORT = 45450
DEFAULT_DEVICE = "petif/converter/1"


def address_of(host: str, port: int, device: str) -> str:
    """Return the Tango resource locator of a device of a server without a database.

    >>> address_of("127.0.0.1", 45450, "petif/converter/1")
    'tango://127.0.0.1:45450/petif/converter/1#dbase=no'
    """
    return f"tango://{host}:{port}/{device}#dbase=no"


DEFAULT_ADDRESS = address_of("127.0.0.1", DEFAULT_PORT, DEFAULT_DEVICE)
"""Where `petif serve` is, unless told otherwise."""


def free_port(host: str) -> int:
    """Return a port that is free now: programs that must tell their own address have to know it before they listen."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
