"""The conversion server as an ophyd Device; its readings are the statistics of the current run."""

from collections.abc import Callable
from typing import Any

from ophyd import Component, Device, Kind, Signal
from ophyd.signal import SignalRO
from ophyd.status import DeviceStatus

from petif_bluesky.draining import DrainStatus, RunReading
from petif_bluesky.link import Link, TangoLink
from petif_bluesky.runs import RunBook
from tango_server.messages import FrameReport


class StatisticSignal(SignalRO):
    """One number of the current run. Only the device itself renews it."""

    def __init__(self, *, units: str = "", dtype_numpy: str = "<i8", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._units = units
        self._dtype_numpy = dtype_numpy

    def renew(self, value: float, timestamp: float) -> None:
        """Take a new value, as of `timestamp` (Unix seconds)."""
        Signal.put(self, value, timestamp=timestamp, force=True)

    def describe(self) -> dict[str, dict[str, Any]]:
        """Return the data key, with units and the exact type."""
        described: dict[str, dict[str, Any]] = super().describe()
        described[self.name].update(units=self._units, dtype_numpy=self._dtype_numpy)
        if self._dtype_numpy == "|b1":  # ophyd calls it an integer
            described[self.name]["dtype"] = "boolean"
        return described


def _count(doc: str) -> Any:
    return Component(StatisticSignal, value=0, units="frames", kind=Kind.normal, doc=doc)


def _seconds(doc: str) -> Any:
    return Component(StatisticSignal, value=0.0, units="s", dtype_numpy="<f8", kind=Kind.normal, doc=doc)


class PETifConverter(Device):
    """The conversion server, seen from bluesky.

    `trigger` is done when every frame submitted for the current run has its report, `read` gives the run's statistics
    then. Neither ever waits for the network in the RunEngine's thread, nor fails because the server is down.

    Parameters
    ----------
    address: Tango resource locator, as `tango://127.0.0.1:45450/petif/converter/1#dbase=no`
    name: name of the device
    drain_timeout: seconds after which `trigger` is done although frames have no report yet (`drained` is False then)
    link: another connection than the one to `address`

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
        StatisticSignal, value=False, dtype_numpy="|b1", kind=Kind.normal, doc="whether every frame had its report"
    )

    def __init__(
        self, address: str, *, name: str, drain_timeout: float = 30.0, link: Link | None = None, **kwargs: Any
    ) -> None:
        super().__init__(address, name=name, **kwargs)
        self.link: Link = link or TangoLink(address)
        self.runs = RunBook()
        self.drain_timeout = drain_timeout
        self.current_run: str | None = None
        self.reports: tuple[FrameReport, ...] = ()
        """The reports of the run that was waited for last, oldest first."""

    def trigger(self) -> DeviceStatus:
        """Return a status that is done when every frame of the current run has its report; it never fails."""
        if self.current_run is None:
            status = DeviceStatus(self)
            status.set_finished()
            return status
        return self.drain(self.current_run)

    def drain(
        self, run_uid: str, *, timeout: float | None = None, taken: Callable[[RunReading], None] = lambda _reading: None
    ) -> DrainStatus:
        """Return a status that is done when every frame of a run has its report; it never fails.

        `taken` gets the reading before the status is done.
        """

        def take(reading: RunReading) -> None:
            self._take(reading)
            taken(reading)

        limit = self.drain_timeout if timeout is None else timeout
        return DrainStatus(self, run_uid, link=self.link, runs=self.runs, timeout=limit, taken=take)

    def _take(self, reading: RunReading) -> None:
        self.reports = reading.reports
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
