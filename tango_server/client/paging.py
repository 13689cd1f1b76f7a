"""Queries with paged answers, and retries while a server is temporarily unavailable."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from tango_server.client.client import LinkDownError
from tango_server.conversion.files.path_map import absolute
from tango_server.messages import FolderAnswer, RefusedRequest

_PAUSE = 0.5
_PATHS_PER_QUERY = 200
"""Files per query: a file server may take milliseconds for each, and other clients wait meanwhile."""

Answer = TypeVar("Answer")


def with_retries(query: Callable[[], Answer], deadline: float) -> Answer:
    """Call `query`, and again while the server is unavailable, until `deadline` (monotonic clock, s).

    Raises
    ------
    LinkDownError
        if there is no answer before the deadline.
    LinkError
        if the server answers with an error.

    """
    pause = threading.Event()
    while True:
        try:
            return query()
        except LinkDownError:
            if time.monotonic() + _PAUSE > deadline:
                raise
            pause.wait(_PAUSE)


def listed(query: Callable[[str], FolderAnswer]) -> Iterator[str]:
    """Yield the frames of a folder; `query` is called with the name after which the next page starts."""
    after, more = "", True
    while more:
        answer = query(after)
        yield from answer.frames
        more = answer.more
        last = absolute(answer.frames[-1]) if answer.frames else None
        after = last.name if last else ""


def lost(query: Callable[[Sequence[str]], Sequence[RefusedRequest]], paths: Sequence[str]) -> Iterator[RefusedRequest]:
    """Yield the paths at which the server sees no file, and why; `query` is called with some paths at a time."""
    for first in range(0, len(paths), _PATHS_PER_QUERY):
        yield from query(paths[first : first + _PATHS_PER_QUERY])
