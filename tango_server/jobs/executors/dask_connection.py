"""The connection to a Dask scheduler, with automatic reconnection."""

import asyncio
import contextlib
import logging

from distributed import Client

from tango_server.jobs.executors.base import ExecutorUnavailableError

_log = logging.getLogger(__name__)

_CONNECT_TIMEOUT = 5.0
_TASK_TIMEOUT = 1.0  # s; how long a task waits for the connection
_CANCEL_TIMEOUT = 1.0
_CLOSE_TIMEOUT = 3.0


class SchedulerConnection:
    """The connection to the scheduler, renewed on demand. Belongs to one event loop."""

    def __init__(self, scheduler: str) -> None:
        self._scheduler = scheduler
        self._client: Client | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._problem = ""

    def begin(self) -> asyncio.Task[None]:
        """Connect in the background, unless already connecting."""
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect())
        return self._connecting

    def reconnect(self) -> None:
        """Connect in the background unless connected."""
        if self._client is None or self._client.status == "closed":
            self.begin()

    async def client(self) -> Client:
        """Return a connected client, or raise `ExecutorUnavailableError` after `_TASK_TIMEOUT`."""
        if self._client is None or self._client.status == "closed":
            await asyncio.wait({self.begin()}, timeout=_TASK_TIMEOUT)
        if self._client is not None and self._client.status == "running":
            return self._client
        raise ExecutorUnavailableError(self.problem or self._message("no answer yet"))

    @property
    def problem(self) -> str:
        """Why the last attempt to connect failed; empty if it succeeded, or none was made."""
        return self._message(self._problem) if self._problem else ""

    def _message(self, problem: str) -> str:
        return (
            f"Cannot connect to the Dask scheduler at {self._scheduler}: {problem}. Frames wait. Start the scheduler, "
            "or correct dask_scheduler and call Init."
        )

    async def close(self) -> None:
        """Disconnect."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting}, timeout=_CANCEL_TIMEOUT)
        if self._client is not None:
            with contextlib.suppress(OSError, TimeoutError):  # the scheduler is gone
                await self._client.close(timeout=_CLOSE_TIMEOUT)

    async def _connect(self) -> None:
        client = Client(
            self._scheduler, asynchronous=True, set_as_default=False, timeout=_CONNECT_TIMEOUT, name="petif"
        )
        try:
            await client
        except Exception as error:  # noqa: BLE001 - task boundary; without a connection, frames wait
            if str(error) != self._problem:  # log it once
                known = error if not isinstance(error, OSError) else None
                _log.warning("Cannot connect to the Dask scheduler at %s: %s", self._scheduler, error, exc_info=known)
            self._problem = str(error)
        else:
            self._client, self._problem = client, ""
            _log.info("Connected to the Dask scheduler at %s", self._scheduler)
        finally:
            if client is not self._client:
                await client.close(timeout=_CANCEL_TIMEOUT)
