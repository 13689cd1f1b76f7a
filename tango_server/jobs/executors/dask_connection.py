"""The connection of this process with a Dask scheduler, which may come and go."""

import asyncio
import contextlib
import logging

from distributed import Client

from tango_server.jobs.executors.base import ExecutorUnavailableError

_log = logging.getLogger(__name__)

_CONNECT_TIMEOUT = 5.0
_CONNECT_PATIENCE = 1.0  # how long a task waits for the connection
_CANCEL_PATIENCE = 1.0
_LEAVE_PATIENCE = 3.0


class SchedulerConnection:
    """The way to the scheduler, made anew whenever somebody wants it and it is lost. Belongs to one event loop."""

    def __init__(self, scheduler: str) -> None:
        self._scheduler = scheduler
        self._client: Client | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._problem = ""

    def begin(self) -> asyncio.Task[None]:
        """Connect in the background, unless that is under way."""
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect())
        return self._connecting

    def mend(self) -> None:
        """Connect in the background if there is no connection."""
        if self._client is None or self._client.status == "closed":
            self.begin()

    async def client(self) -> Client:
        """Return a client that is connected, or raise `ExecutorUnavailableError` after a moment."""
        if self._client is None or self._client.status == "closed":
            await asyncio.wait({self.begin()}, timeout=_CONNECT_PATIENCE)
        if self._client is not None and self._client.status == "running":
            return self._client
        raise ExecutorUnavailableError(self.trouble or self._told("no answer yet"))

    @property
    def trouble(self) -> str:
        """Why there was no connection when it was last tried; empty: there was one, or it was not tried."""
        return self._told(self._problem) if self._problem else ""

    def _told(self, problem: str) -> str:
        return (
            f"no connection with the Dask scheduler at {self._scheduler} ({problem}); frames wait for it. "
            "Start it, or correct dask_scheduler and call Init."
        )

    async def close(self) -> None:
        """Leave the cluster."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting}, timeout=_CANCEL_PATIENCE)
        if self._client is not None:
            with contextlib.suppress(OSError, TimeoutError):  # the scheduler is gone
                await self._client.close(timeout=_LEAVE_PATIENCE)

    async def _connect(self) -> None:
        client = Client(
            self._scheduler, asynchronous=True, set_as_default=False, timeout=_CONNECT_TIMEOUT, name="petif"
        )
        try:
            await client
        except Exception as error:  # noqa: BLE001 - the boundary of this task; without a connection, frames wait
            if str(error) != self._problem:  # tell it once
                known = error if not isinstance(error, OSError) else None
                _log.warning("no connection with the Dask scheduler at %s: %s", self._scheduler, error, exc_info=known)
            self._problem = str(error)
        else:
            self._client, self._problem = client, ""
            _log.info("connected with the Dask scheduler at %s", self._scheduler)
        finally:
            if client is not self._client:
                await client.close(timeout=_CANCEL_PATIENCE)
