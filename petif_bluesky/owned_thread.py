"""Threads that end when their owner is garbage-collected, so that it needs no explicit close."""

import threading
import weakref
from collections.abc import Callable
from typing import TypeVar

Owner = TypeVar("Owner")

FOR_EVER = threading.TIMEOUT_MAX


def keep_calling(
    step: Callable[[Owner], float | None],
    owner: Owner,
    wake: threading.Event,
    *,
    name: str,
    thread: type[threading.Thread] = threading.Thread,
) -> threading.Thread:
    """Call `step(owner)` repeatedly in a thread called `name` until it returns None or `owner` is garbage-collected.

    `step` returns the number of seconds until the next call; setting `wake` cuts this short. It must not raise.
    """
    held = weakref.ref(owner, lambda _: wake.set())

    def run() -> None:
        pause: float | None = 0.0
        while pause is not None:
            wake.wait(pause)
            wake.clear()
            owner = held()
            pause = None if owner is None else step(owner)
            del owner

    started = thread(target=run, name=name, daemon=True)
    started.start()
    return started
