"""Threads that end with what they work for: nobody needs to close it."""

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
    """Call `step(owner)` in a thread called `name`, again and again, until it returns None or nobody holds `owner`.

    It returns after how many seconds it is to be called again; `wake` cuts them short. It must not raise.
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
