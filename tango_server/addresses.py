"""Tango addresses of servers without a database, and free ports for them."""

import os
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
"""The default address of `petif serve`."""


def free_port(host: str, port: int = 0) -> int:
    """Return a port that is free now, `port` itself unless it is 0.

    For programs that must know their own address before they listen.

    Raises
    ------
    OSError
        if `host` is not an address of this machine, or the port is in use.
    """
    with socket.socket() as probe:
        if os.name == "posix":  # as the servers do: a port that was in use a moment ago is free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        probe.listen()
        free: int = probe.getsockname()[1]
        return free
