"""The conversion server as an ophyd-async Device; it reads the statistics of the current run."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import tango
from ophyd_async.core import DEFAULT_TIMEOUT, DeviceMock, NotConnectedError, SignalR
from ophyd_async.tango.core import DevStateEnum, TangoDevice, TangoPolling
from tango.asyncio_executor import AsyncioExecutor, get_global_executor, set_global_executor

from petif_bluesky.converter_base import UNITS, ConverterBase
from petif_bluesky.ophyd_async.recipe import RecipeSignal
from petif_bluesky.server_poller import Poller
from petif_bluesky.signals.completion import Completion
from tango_server.client.attributes import AttributeReading

# Subscribers are called about once a second: ophyd-async reads numbers at each poll, all else at each fourth.
_Count = Annotated[SignalR[int], TangoPolling(1.0, 0, 0)]
_Number = Annotated[SignalR[float], TangoPolling(1.0, 0.0, 0.0)]
_Text = Annotated[SignalR[str], TangoPolling(0.25)]
_DTYPES = {int: "integer", float: "number", bool: "boolean", str: "string"}


class ConversionDevice(ConverterBase, TangoDevice):
    """The conversion server as a device for ophyd-async sessions; `PETifConverter` is its classic counterpart.

    `trigger` is done when every frame submitted for the current run has a report; `read` then returns the statistics of
    the run, with the names, units and types of the classic device. They need no connection, never wait for the network
    and never fail because the server is down.

    The signals are the attributes of the server, with their names in Tango. They are not part of readings. They need
    `connect`; over a restart of the server they stay connected.

    Parameters
    ----------
    trl: Tango resource locator, such as `tango://127.0.0.1:45450/petif/converter/1#dbase=no`
    name: name of the device; `init_devices` may set it later
    drain_timeout: seconds after which `trigger` is done even if frames are still pending (`drained` is then False)
    poller: used instead of polling the server; tests may pass a `petif_bluesky.testing.FakeServer`

    """

    State: Annotated[SignalR[DevStateEnum], TangoPolling(0.25)]
    Status: _Text
    NumWorkers: _Count
    Recipe: _Text
    ConfRotation: _Count
    ConfFlip: _Text
    ConfType: _Text
    NumProcessed: _Count
    StatisticsTotalFrames: _Count
    NumFailed: _Count
    NumSkipped: _Count
    NumPlaceholders: _Count
    QueueLength: _Count
    StatisticsTotalTime: _Number
    StatisticsAverageTime: _Number
    LatencyMedian: _Number
    LatencyP95: _Number
    FramesPerSecond: _Number
    BytesPerSecond: _Number
    FreeSpace: _Count
    LastSource: _Text
    LastOutput: _Text
    LastError: _Text
    FailedFiles: Annotated[SignalR[Sequence[str]], TangoPolling(0.25)]

    def __init__(self, trl: str, name: str = "", *, drain_timeout: float = 30.0, poller: Poller | None = None) -> None:
        ConverterBase.__init__(self, trl, drain_timeout, poller)
        self.recipe = RecipeSignal()
        TangoDevice.__init__(self, trl, support_events=False, auto_fill_signals=False, name=name)

    async def connect(
        self,
        mock: bool | DeviceMock[Any] = False,  # noqa: FBT001, FBT002 - ophyd-async's signature
        timeout: float = DEFAULT_TIMEOUT,
        force_reconnect: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        """Connect the signals, once the server answers the background poller.

        Raises
        ------
        NotConnectedError
            if the server has not answered within `timeout` seconds; the message has its address and what to do.

        """
        if not mock:
            await self._wait_for_answer(timeout)
            _use_running_loop()
        try:
            await super().connect(mock, timeout, force_reconnect)
        except tango.DevFailed as error:
            reason = f"no conversion server answers ({error.args[0].reason})"
            raise NotConnectedError(
                f"{self.name}: cannot connect to {self.client.address}: {reason}. Connect again once it does."
            ) from error

    @property
    def connected(self) -> bool:
        """Whether the server answered when last polled, about a second ago; never blocks."""
        return self.poller.state.connected

    @property
    def hints(self) -> dict[str, list[str]]:
        """No fields: otherwise `BestEffortCallback` would plot all."""
        return {"fields": []}

    async def read(self) -> dict[str, dict[str, Any]]:
        """Return the statistics of the run last waited for."""
        taken, values = self.reading.taken, self.reading.values(of_groups=self.shows_groups)
        return self._named({key: _reading(value, taken) for key, value in values.items()})

    async def describe(self) -> dict[str, dict[str, Any]]:
        """Return the data keys of `read`."""
        values = self.reading.values(of_groups=self.shows_groups)
        return self._named({key: _data_key(type(value), **UNITS[type(value)]) for key, value in values.items()})

    async def read_configuration(self) -> dict[str, dict[str, Any]]:
        """Return the recipe of the session, and the server's configuration when last polled."""
        return self._configuration()

    async def describe_configuration(self) -> dict[str, dict[str, Any]]:
        """Return the data keys of `read_configuration`."""
        workers, recipe = (f"TANGO:{self.client.address}/{name}" for name in ("NumWorkers", "Recipe"))
        keys = {
            "recipe": _data_key(str),
            "server_workers": _data_key(int, source=workers, units="processes", precision=0, dtype_numpy="<i8"),
            "server_recipe": _data_key(str, source=recipe),
            "server_version": _data_key(str),
        }
        return self._named(keys)

    def stage(self) -> Completion:
        """Prepare for a run; a run that has ended is not waited for again."""
        self._stage_run()
        return Completion(done=True)

    def unstage(self) -> Completion:
        """Do nothing; a run may end later than this."""
        return Completion(done=True)

    def destroy(self) -> None:
        """Stop polling the server, unless the poller was passed in."""
        self._stop_polling()

    def _configuration(self) -> dict[str, dict[str, Any]]:
        server = self.poller.state
        workers = server.attributes.get("NumWorkers", AttributeReading(0, server.seen))
        recipe = server.attributes.get("Recipe", AttributeReading("", server.seen))
        readings = {
            "recipe": self.recipe.reading(),
            "server_workers": _reading(workers.value, workers.timestamp),
            "server_recipe": _reading(recipe.value, recipe.timestamp),
            "server_version": _reading(server.version, server.seen),
        }
        return self._named(readings)

    def _named(self, fields: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {f"{self.name}_{key}": field for key, field in fields.items()}

    async def _wait_for_answer(self, timeout: float) -> None:
        with self._first_answer() as answered:
            try:
                await asyncio.wait_for(answered, timeout)
            except TimeoutError:
                raise NotConnectedError(self._not_connected(timeout)) from None


def _use_running_loop() -> None:
    """Let PyTango work in this event loop: it keeps that of the first RunEngine of a process."""
    if get_global_executor().loop is not asyncio.get_running_loop():
        set_global_executor(AsyncioExecutor())


def _reading(value: Any, timestamp: float) -> dict[str, Any]:
    return {"value": value, "timestamp": timestamp}


def _data_key(kind: type, *, source: str = "petif-bluesky", **described: Any) -> dict[str, Any]:
    return {"source": source, "dtype": _DTYPES[kind], "shape": [], **described}
