"""The conversion server as an ophyd Device; it reads the statistics of the current run."""

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ophyd import Component, Device, Kind
from ophyd.signal import DEFAULT_CONNECTION_TIMEOUT
from ophyd.status import DeviceStatus

from petif_bluesky.delivery.run_book import RunBook
from petif_bluesky.server_poller import Poller, ServerPoller
from petif_bluesky.signals.drain_status import NOTHING_KNOWN, DrainStatus, RunReading, RunSoFar
from petif_bluesky.signals.recipe import RecipeSignal
from petif_bluesky.signals.run_reports import RunReports
from petif_bluesky.signals.server import MirrorSignal, ServerSignals
from tango_server.client.client import Client


def _count(doc: str) -> Any:
    described = {"units": "frames", "precision": 0, "dtype_numpy": "<i8"}
    return Component(MirrorSignal, value=0, kind=Kind.normal, doc=doc, **described)


def _seconds(doc: str) -> Any:
    described = {"units": "s", "precision": 4, "dtype_numpy": "<f8"}
    return Component(MirrorSignal, value=0.0, kind=Kind.normal, doc=doc, **described)


class PETifConverter(Device):
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
    conversion_time_total = _seconds("total conversion time of this run")
    conversion_time_mean = _seconds("mean conversion time per frame of this run")
    latency_median = _seconds("median time from complete file to visible output")
    latency_p95 = _seconds("95th percentile of the time from complete file to visible output")
    drained = Component(
        MirrorSignal,
        value=False,
        dtype_numpy="|b1",
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
        super().__init__(address, name=name, **kwargs)
        self._own_poller: ServerPoller | None = None
        if poller is None:
            poller = self._own_poller = ServerPoller(Client(address))
        self.poller = poller
        self.client = self.poller.client
        self.runs = RunBook()
        self.drain_timeout = drain_timeout
        self.current_run: str | None = None
        self.reports = RunReports("")
        """Reports of the run last waited for, in order of completion."""
        self._unwatch = self.poller.watch(self.server.renew)
        self.server.renew(self.poller.state)

    def destroy(self) -> None:
        """Destroy the device; stop polling, unless the poller was passed in."""
        self._unwatch()
        if self._own_poller is not None:
            self._own_poller.close()
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
        answered = threading.Event()
        unwatch = self.poller.watch(lambda server: answered.set() if server.connected else None)
        try:
            if not (self.connected or answered.wait(timeout)):
                raise TimeoutError(
                    f"{self.name}: cannot connect to {self.prefix} within {timeout:g} s: {self.poller.state.error} "
                    "The device connects by itself once the server answers."
                )
        finally:
            unwatch()

    def configure(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Set the recipe for the next runs; return the configuration before and after.

        This recipe is sent with each frame of this session. The server's own recipe, which all clients share, stays.

        Raises
        ------
        ValueError
            if `values` has another key than `recipe`, or its value is not a recipe.

        """
        before = self.read_configuration()
        unknown = sorted(values.keys() - {"recipe"})
        if unknown:
            raise ValueError(
                f"{self.name}: cannot configure {unknown[0]!r}: a session can only set 'recipe'. "
                "Change server settings on the server."
            )
        if "recipe" in values:
            self.recipe.put(values["recipe"])
        return before, self.read_configuration()

    def stage(self) -> list[object]:
        """Prepare for a run; a run that has ended is not waited for again."""
        if self.current_run is not None and self.runs.is_closed(self.current_run):
            self.current_run = None
        staged: list[object] = super().stage()
        return staged

    def trigger(self) -> DeviceStatus:
        """Return a status that is done when every frame of the current run has a report; it never fails.

        The current run is the one set by a wrapper, or else the latest one seen by a callback of this session.
        """
        run_uid = self.current_run
        if run_uid is None or self.runs.is_closed(run_uid):
            run_uid = self.runs.newest_open() or run_uid
        if run_uid is None:
            status = DeviceStatus(self)
            status.set_finished()
            return status
        return self.drain(run_uid)

    def drain(
        self,
        run_uid: str,
        *,
        reports: RunReports | None = None,
        timeout: float | None = None,
        taken: Callable[[RunReading], None] = lambda _reading: None,
        through_outages: bool = False,
        so_far: RunSoFar = NOTHING_KNOWN,
    ) -> DrainStatus:
        """Return a status that is done when every frame of a run has a report; it never fails.

        New reports are added to `reports`; by default to those of the last call, if that was for the same run.
        `taken` is called with the reading before the status is done. The wait ends if the server cannot be reached,
        unless `through_outages` is True. `so_far` is what the plan knows of the run.
        """
        kept = self.reports if reports is None else reports
        if kept.run_uid != run_uid:
            kept = RunReports(run_uid)

        def take(reading: RunReading) -> None:
            self.reports = kept
            self._take(reading)
            taken(reading)

        limit = self.drain_timeout if timeout is None else timeout
        return DrainStatus(
            self,
            run_uid,
            poller=self.poller,
            runs=self.runs,
            reports=kept,
            timeout=limit,
            taken=take,
            through_outages=through_outages,
            so_far=so_far,
        )

    def _repr_info(self) -> Iterator[tuple[str, Any]]:
        """Return the arguments that make a copy of this device, for ophyd."""
        yield from super()._repr_info()
        yield "drain_timeout", self.drain_timeout

    def _take(self, reading: RunReading) -> None:
        statistics = reading.statistics
        values = {
            "submitted": reading.submitted,
            "converted": statistics.converted,
            "skipped": statistics.skipped,
            "failed": statistics.failed,
            "placeholders": statistics.placeholders,
            "conversion_time_total": statistics.conversion_time_total,
            "conversion_time_mean": statistics.conversion_time_mean,
            "latency_median": statistics.latency_median,
            "latency_p95": statistics.latency_p95,
            "drained": reading.drained,
            "problem": reading.problem,
            "used_recipe": reading.recipe,
        }
        for name, value in values.items():
            getattr(self, name).renew(value, reading.taken)
