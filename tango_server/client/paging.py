"""Questions to a server whose answers come in parts, and patience with one that is away for a while."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from tango_server.client.client import LinkDownError
from tango_server.conversion.files.path_map import absolute
from tango_server.messages import FolderAnswer, RefusedRequest

_PAUSE = 0.5
_LOOKED_FOR = 200
"""Files in one question: a file server may take milliseconds for each, and other clients wait meanwhile."""

Answer = TypeVar("Answer")


def with_retries(ask: Callable[[], Answer], deadline: float) -> Answer:
    """Return the answer of a server that may be away for a while; `deadline` by the monotonic clock (s).

    Raises
    ------
    LinkDownError
        if there is none before the deadline.
    LinkError
        if the server answers with one.

    """
    pause = threading.Event()
    while True:
        try:
            return ask()
        except LinkDownError:
            if time.monotonic() + _PAUSE > deadline:
                raise
            pause.wait(_PAUSE)


def listed(ask: Callable[[str], FolderAnswer]) -> Iterator[str]:
    """Yield the frames of a folder; `ask` is called with the name after which the next part of the list begins."""
    after, more = "", True
    while more:
        answer = ask(after)
        yield from answer.frames
        more = answer.more
        last = absolute(answer.frames[-1]) if answer.frames else None
        after = last.name if last else ""


def lost(ask: Callable[[Sequence[str]], Sequence[RefusedRequest]], paths: Sequence[str]) -> Iterator[RefusedRequest]:
    """Yield the paths at which the server sees no file, and why; `ask` is called with some paths at a time."""
    for first in range(0, len(paths), _LOOKED_FOR):
        yield from ask(paths[first : first + _LOOKED_FOR])
