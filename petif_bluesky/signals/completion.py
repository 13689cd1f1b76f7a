"""A bluesky status for classic and async devices."""

import asyncio
from collections.abc import Callable, Generator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any


class Completion:
    """Done once `finish` is called, from any thread; it never fails.

    The RunEngine uses it as a bluesky status, threads `wait` for it, and coroutines `await` it.
    """

    def __init__(self, *, done: bool = False) -> None:
        self._future: Future[None] = Future()
        self._future.set_running_or_notify_cancel()  # a coroutine that is cancelled must not cancel it for others
        if done:
            self.finish()

    @property
    def done(self) -> bool:
        """Whether it is done."""
        return self._future.done()

    @property
    def success(self) -> bool:
        """Whether it is done."""
        return self.done

    def finish(self) -> None:
        """Make it done; further calls change nothing."""
        with suppress(InvalidStateError):
            self._future.set_result(None)

    def add_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback` with this object once it is done; no lock is held meanwhile."""
        self._future.add_done_callback(lambda _future: callback(self))

    def exception(self, timeout: float | None = 0.0) -> BaseException | None:
        """Return None; raise `TimeoutError` if it is not done within `timeout` seconds."""
        return self._future.exception(timeout)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is done; raise `TimeoutError` if that takes more than `timeout` seconds."""
        self._future.result(timeout)

    def __await__(self) -> Generator[Any, None, None]:
        return asyncio.wrap_future(self._future).__await__()
