"""Run a function in a thread while a plan waits, so that the RunEngine can be paused or aborted meanwhile."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from bluesky import plan_stubs as bps
from bluesky.utils import MsgGenerator

Result = TypeVar("Result")


def in_background(function: Callable[[], Result], name: str) -> MsgGenerator[Result]:
    """Call a function in a thread called `name`, wait for it, and return its result or raise its error.

    It is called only once, even if a pause makes the plan wait again. If the plan ends first, the call still completes.
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
        except Exception as error:  # noqa: BLE001 - raised when the result is requested
            self.future.set_exception(error)
        else:
            self.future.set_result(result)
