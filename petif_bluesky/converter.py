"""The conversion server as an ophyd Device; its readings are the statistics of the current run."""

from collections.abc import Callable, Mapping
from typing import Any

from ophyd import Component, Device, Kind
from ophyd.status import DeviceStatus

from petif_bluesky.delivery.run_book import RunBook
from petif_bluesky.server_poller import Poller, ServerPoller
from petif_bluesky.signals.drain_status import DrainStatus, RunReading
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
    """The conversion server, seen from bluesky.

    `trigger` is done when every frame submitted for the current run has its report, `read` gives the run's statistics
    then. Neither ever waits for the network in the RunEngine's thread, nor fails because the server is down.

    Parameters
    ----------
    address: Tango resource locator, as `tango://127.0.0.1:45450/petif/converter/1#dbase=no`
    name: name of the device
    drain_timeout: seconds after which `trigger` is done although frames have no report yet (`drained` is False then)
    poller: used instead of polling the server at `address`; a test may give a `petif_bluesky.testing.FakeServer`

    """

    submitted = _count("frames of this run that were submitted")
    converted = _count("frames of this run that were converted")
    skipped = _count("frames of this run that needed no conversion")
    failed = _count("frames of this run that could not be converted")
    placeholders = _count("zero-filled frames in place of files of this run that never came")
    conversion_time_total = _seconds("total conversion time of this run")
    conversion_time_mean = _seconds("mean conversion time of one frame")
    latency_median = _seconds("median time from file complete to output visible")
    latency_p95 = _seconds("time from file complete to output visible that 95 % of the frames kept")
    drained = Component(
        MirrorSignal, value=False, dtype_numpy="|b1", kind=Kind.normal, doc="whether every frame had its report"
    )

    recipe = Component(RecipeSignal, kind=Kind.config, doc="recipe of the next runs, as JSON; empty: the server's")
    server = Component(ServerSignals, "", kind=Kind.normal, doc="the attributes of the server")

    def __init__(
        self, address: str, *, name: str, drain_timeout: float = 30.0, poller: Poller | None = None, **kwargs: Any
    ) -> None:
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
        """The reports of the run that was waited for last, as they were finished."""
        self._unwatch = self.poller.watch(self.server.renew)
        self.server.renew(self.poller.state)

    def destroy(self) -> None:
        """End the polling, unless the poller was given, and the device."""
        self._unwatch()
        if self._own_poller is not None:
            self._own_poller.close()
        super().destroy()

    def configure(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Choose the recipe of the next runs; return the configuration before and after.

        The server keeps its own recipe, which is for everybody: this one goes with each frame of this session.

        Raises
        ------
        ValueError
            if `values` has anything but a `recipe`, or that is none.

        """
        before = self.read_configuration()
        unknown = sorted(values.keys() - {"recipe"})
        if unknown:
            raise ValueError(
                f"{self.name}: found {unknown[0]!r}; expected 'recipe', which is all that a session can choose. "
                "Settings of the server are set there."
            )
        if "recipe" in values:
            self.recipe.put(values["recipe"])
        return before, self.read_configuration()

    def stage(self) -> list[object]:
        """Make ready for a run: what was known of an ended one is not waited for again."""
        if self.current_run is not None and self.runs.is_closed(self.current_run):
            self.current_run = None
        staged: list[object] = super().stage()
        return staged

    def trigger(self) -> DeviceStatus:
        """Return a status that is done when every frame of the current run has its report; it never fails.

        The current run is the one that a wrapper has set, or the last one that a callback of this session has seen.
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
    ) -> DrainStatus:
        """Return a status that is done when every frame of a run has its report; it never fails.

        `reports` of the run get what is new of it; without them those of the last call do, if it was for the same run.
        `taken` gets the reading before the status is done. A server that is out of reach ends the waiting, unless
        `through_outages`.
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
        )

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
        }
        for name, value in values.items():
            getattr(self, name).renew(value, reading.taken)
