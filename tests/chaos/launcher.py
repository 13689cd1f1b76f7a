"""Start a server, or its database, as a child of the chaos: it ends with its parent, and its wall clock can be moved.

    python -m tests.chaos.launcher server INSTANCE [Tango's own arguments]
    python -m tests.chaos.launcher database [arguments of PyTango's database server]

The wall clock of the server and of its workers is this machine's plus the seconds in the file that CLOCK names. The
machine's own clock is left alone; so are the monotonic clock and the times of files.
"""

import os
import signal
import struct
import sys
import threading
import time
from pathlib import Path

CLOCK = "PETIF_CHAOS_CLOCK"
_OFFSET = struct.Struct("<d")


def set_wall_clock(path: Path, offset: float) -> None:
    """Put the wall clock of whoever was started with CLOCK=path off by `offset` s."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        os.pwrite(descriptor, _OFFSET.pack(offset), 0)  # one call: no reader sees half of it
    finally:
        os.close(descriptor)


def _move_wall_clock(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    true_time, true_time_ns = time.time, time.time_ns

    def offset() -> float:
        return float(_OFFSET.unpack(os.pread(descriptor, _OFFSET.size, 0))[0])

    time.time = lambda: true_time() + offset()
    time.time_ns = lambda: true_time_ns() + int(offset() * 1e9)


def _end_with_parent() -> None:
    while sys.stdin.buffer.read(1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Run what the command line names."""
    what, *arguments = sys.argv[1:]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if what == "database":
        from tango.databaseds.database import main as serve_database

        serve_database(arguments)
        return
    from tango_server.cli import tango_main

    sys.argv = ["PETifConverter", *arguments]
    tango_main()


if CLOCK in os.environ:  # at import and before all others, since spawned workers import the main module of their server
    _move_wall_clock(os.environ[CLOCK])

if __name__ == "__main__":
    main()
