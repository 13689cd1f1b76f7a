"""Work beside the RunEngine: what a plan waits for, and what goes on for as long as somebody holds its owner."""

import asyncio
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from bluesky import plan_stubs as bps
from bluesky.utils import MsgGenerator

Owner = TypeVar("Owner")
Result = TypeVar("Result")

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


def in_background(function: Callable[[], Result], name: str) -> MsgGenerator[Result]:
    """Call a function in a thread called `name`, wait for it, and return what it returns or raise what it raises.

    It is called once, also if a pause makes the plan wait again. A plan that ends meanwhile does not end the call.
    """
    work = _Work(function, name)
    yield from bps.wait_for([work.wait])
    return work.future.result(timeout=0)


class _Work(Generic[Result]):
    def __init__(self, function: Callable[[], Result], name: str) -> None:
        self.future: Future[Result] = Future()
        self._function = function
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    async def wait(self) -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        self.future.add_done_callback(lambda _future: loop.call_soon_threadsafe(ended.set))
        if self._thread.ident is None:
            self._thread.start()
        await ended.wait()

    def _run(self) -> None:
        try:
            result = self._function()
        except Exception as error:  # noqa: BLE001 - it is raised where the result is asked for
            self.future.set_exception(error)
        else:
            self.future.set_result(result)
