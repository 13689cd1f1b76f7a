"""What a test module may leave behind: no process, thread, open port, nor file in the folder for temporary files."""

import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

PATIENCE = 10.0
KEPT_BY_LIBRARIES = (
    "ophyd",  # one dispatcher for each process
    "_PyTangoThreadPoolExecutor",  # one pool for each process
    "asyncio_",  # the pool of a loop that lives as long as its library
    "Dummy",  # threads of omniORB and ZeroMQ that called Python once
    "tiled",
    "Dask-",
    "ThreadPoolExecutor-",  # the pools of libraries; ours have names
)


@contextmanager
def nothing_left(temporary: Path, long_lived: set[int]) -> Iterator[None]:
    """Fail with the names of what was started or written within, and is still there.

    Parameters
    ----------
    temporary
        The folder for temporary files of this process and its children.
    long_lived
        Ids of processes that serve the whole session.
    """
    before = _present(temporary, long_lived)
    yield
    left = _since(before, temporary, long_lived)
    if left:
        gc.collect()  # pools of threads end with the objects that hold them
    deadline = time.monotonic() + PATIENCE
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = _since(before, temporary, long_lived)
    assert not left, "left behind: " + ", ".join(left)


def children(long_lived: set[int]) -> list[psutil.Process]:
    """Return the processes below this one, without those that serve the whole session and their own."""
    found, waiting = [], psutil.Process().children()
    while waiting:
        child = waiting.pop()
        if child.pid not in long_lived:
            found.append(child)
            with suppress(psutil.NoSuchProcess):
                waiting += child.children()
    return found


def _since(before: dict[tuple[str, Any], str], temporary: Path, long_lived: set[int]) -> list[str]:
    return sorted(text for key, text in _present(temporary, long_lived).items() if key not in before)


def _present(temporary: Path, long_lived: set[int]) -> dict[tuple[str, Any], str]:
    """Return all that could be left, each with words for people."""
    found: dict[tuple[str, Any], str] = {}
    for thread in threading.enumerate():
        if not thread.name.startswith(KEPT_BY_LIBRARIES):
            found["thread", thread] = f"thread {thread.name}"
    for child in children(long_lived):
        with suppress(psutil.NoSuchProcess):
            command = " ".join(child.cmdline())
            if "resource_tracker" not in command:  # Python's own, one for each process
                found["process", child.pid] = f"process {child.pid}: {command}"
    for connection in psutil.Process().net_connections("inet"):
        if connection.status == psutil.CONN_LISTEN:
            found["port", connection.laddr] = f"port {connection.laddr}"
    for path in temporary.iterdir():
        if not path.is_dir() or any(path.iterdir()):  # ophyd.sim makes an empty folder when it is imported
            found["file", path.name] = f"file {path}"
    return found
