"""Wait in a plan until every frame of a run has a report."""

from collections.abc import Callable
from dataclasses import replace

from petif_bluesky.converter_base import ConverterBase
from petif_bluesky.signals.drain_status import DrainStatus, RunReading, RunSoFar
from petif_bluesky.signals.run_reports import RunReports
from tango_server.messages import RunStatistics


class Drain:
    """A triggerable bluesky object that waits for the frames of one run; it can be triggered again after a pause.

    The RunEngine keeps triggered objects until its call ends, so `forget` drops everything about the run.
    """

    parent = None

    def __init__(
        self,
        converter: ConverterBase,
        reports: RunReports,
        so_far: Callable[[], RunSoFar],
        *,
        through_outages: bool = False,
    ) -> None:
        self.name = converter.name
        self.timeout: float | None = None
        self.reading: RunReading | None = None
        self._converter = converter
        self._reports: RunReports | None = reports
        self._run_uid = reports.run_uid
        self._so_far = so_far
        self._through_outages = through_outages
        self._status: DrainStatus | None = None
        self._statistics: RunStatistics | None = None
        self._unfollow = converter.poller.follow(self._run_uid, self._keep, closely=False)

    def trigger(self) -> DrainStatus:
        """Return a status that is done when every frame of the run has a report; it never fails."""
        self.reading = None
        self._status = self._converter.drain(
            self._run_uid,
            reports=self._reports,
            timeout=self.timeout,
            taken=self._take,
            through_outages=self._through_outages,
            so_far=replace(self._so_far(), statistics=self._statistics),
        )
        return self._status

    def give_up(self) -> bool:
        """Stop waiting; return whether there is a reading."""
        if self._status is not None:
            self._status.give_up()
        return self.reading is not None

    def forget(self) -> None:
        """Drop everything about the run."""
        self._unfollow()
        self._status = self._reports = self.reading = None

    def _take(self, reading: RunReading) -> None:
        self.reading = reading

    def _keep(self, statistics: RunStatistics | None) -> None:
        """Keep the statistics of the open run: the server may be away when it closes."""
        self._statistics = statistics or self._statistics
