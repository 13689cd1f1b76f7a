"""The conversion server as an ophyd Device; it reads the statistics of the current run."""

from collections.abc import Iterator
from typing import Any

from ophyd import Component, Device, Kind
from ophyd.signal import DEFAULT_CONNECTION_TIMEOUT

from petif_bluesky.converter_base import UNITS, ConverterBase
from petif_bluesky.server_poller import Poller
from petif_bluesky.signals.drain_status import OF_GROUPS, RunReading
from petif_bluesky.signals.recipe import RecipeSignal
from petif_bluesky.signals.server import MirrorSignal, ServerSignals


def _count(doc: str, kind: Kind = Kind.normal) -> Any:
    return Component(MirrorSignal, value=0, kind=kind, doc=doc, **UNITS[int])


def _seconds(doc: str) -> Any:
    return Component(MirrorSignal, value=0.0, kind=Kind.normal, doc=doc, **UNITS[float])


class PETifConverter(ConverterBase, Device):
    """The conversion server as a bluesky device.

    `trigger` is done when every frame submitted for the current run has a report; `read` then returns the statistics of
    the run. Neither waits for the network in the RunEngine's thread or fails because the server is down.

    Parameters
    ----------
    address: Tango resource locator, such as `tango://127.0.0.1:45450/petif/converter/1#dbase=no`
    prefix: another name for `address`, as loaders like happi and guarneri call it
    name: name of the device
    drain_timeout: seconds after which `trigger` is done even if frames are still pending (`drained` is then False)
    poller: used instead of polling the server at `address`; tests may pass a `petif_bluesky.testing.FakeServer`

    Raises
    ------
    TypeError
        unless exactly one of `address` and `prefix` is given.

    """

    submitted = _count("frames submitted in this run")
    converted = _count("frames converted in this run")
    skipped = _count("frames skipped in this run because they needed no conversion")
    failed = _count("frames of this run that failed to convert")
    placeholders = _count("zero-filled placeholders for files of this run that never arrived")
    grouped = _count("frames of this run that are part of a combined frame", Kind.omitted)
    groups = _count("combined frames of this run", Kind.omitted)
    groups_failed = _count("groups of frames of this run that could not be combined", Kind.omitted)
    superseded = _count("frames of this run whose point was taken again", Kind.omitted)
    conversion_time_total = _seconds("total conversion time of this run")
    conversion_time_mean = _seconds("mean conversion time per frame of this run")
    latency_median = _seconds("median time from complete file to visible output")
    latency_p95 = _seconds("95th percentile of the time from complete file to visible output")
    drained = Component(
        MirrorSignal,
        value=False,
        **UNITS[bool],
        kind=Kind.normal,
        doc="whether these numbers are final: every frame of the run was submitted and had a report in time",
    )
    problem = Component(MirrorSignal, value="", kind=Kind.normal, doc="why the numbers are not final, or a frame fails")
    used_recipe = Component(MirrorSignal, value="", kind=Kind.normal, doc="recipe of the frames of this run, as JSON")

    recipe = Component(
        RecipeSignal, kind=Kind.config, doc="recipe for the next runs, as JSON; empty to use the server's"
    )
    server = Component(ServerSignals, "", kind=Kind.normal, doc="attributes of the server")

    def __init__(
        self,
        address: str = "",
        *,
        name: str,
        prefix: str = "",
        drain_timeout: float = 30.0,
        poller: Poller | None = None,
        **kwargs: Any,
    ) -> None:
        if bool(address) == bool(prefix):
            given = f"both {address!r} and {prefix!r} were given" if address else "none was given"
            raise TypeError(
                f"{name}: cannot tell the server's address: {given}. Pass it as `address` or as `prefix`, "
                "for example tango://HOST:45450/petif/converter/1#dbase=no."
            )
        address = address or prefix
        ConverterBase.__init__(self, address, drain_timeout, poller)
        Device.__init__(self, address, name=name, **kwargs)
        self._unwatch = self.poller.watch(self.server.renew)
        self.server.renew(self.poller.state)

    def destroy(self) -> None:
        """Destroy the device; stop polling, unless the poller was passed in."""
        self._unwatch()
        self._stop_polling()
        super().destroy()

    @property
    def connected(self) -> bool:
        """Whether the server answered when last polled, about a second ago; never blocks."""
        return bool(super().connected) and self.poller.state.connected

    def wait_for_connection(
        self,
        all_signals: bool = False,  # noqa: FBT001, FBT002 - ophyd's signature
        timeout: float | None = DEFAULT_CONNECTION_TIMEOUT,
    ) -> None:
        """Wait until the server answers the background poller.

        Parameters
        ----------
        all_signals: for compatibility with ophyd; all signals come with the same answer
        timeout: seconds; None to wait forever, by default the device's `connection_timeout` (10 s)

        Raises
        ------
        TimeoutError
            if the server has not answered in time.

        """
        del all_signals
        if timeout is DEFAULT_CONNECTION_TIMEOUT:
            timeout = self.connection_timeout
        with self._first_answer() as answered:
            try:
                answered.wait(timeout)
            except TimeoutError:
                raise TimeoutError(
                    f"{self._not_connected(timeout)} The device connects by itself once the server answers."
                ) from None

    def stage(self) -> list[object]:
        """Prepare for a run; a run that has ended is not waited for again."""
        self._stage_run()
        staged: list[object] = super().stage()
        return staged

    def _repr_info(self) -> Iterator[tuple[str, Any]]:
        """Return the arguments that make a copy of this device, for ophyd."""
        yield from super()._repr_info()
        yield "drain_timeout", self.drain_timeout

    def _configuration(self) -> dict[str, Any]:
        read: dict[str, Any] = self.read_configuration()
        return read

    def _show_groups(self, shown: bool) -> None:  # noqa: FBT001 - as in the base
        super()._show_groups(shown)
        for name in OF_GROUPS:
            getattr(self, name).kind = Kind.normal if shown else Kind.omitted

    def _renew(self, reading: RunReading) -> None:
        for name, value in reading.values(of_groups=True).items():
            getattr(self, name).renew(value, reading.taken)
