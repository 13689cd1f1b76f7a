"""What the classic and the async device have in common: both represent the conversion server in a session."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from petif_bluesky.delivery.run_book import RunBook
from petif_bluesky.server_poller import Poller, ServerPoller, ServerState
from petif_bluesky.signals.completion import Completion
from petif_bluesky.signals.drain_status import NOTHING_KNOWN, DrainStatus, RunReading, RunSoFar
from petif_bluesky.signals.run_reports import RunReports
from tango_server.client.client import Client
from tango_server.messages import RunStatistics

UNITS: dict[type, dict[str, Any]] = {
    int: {"units": "frames", "precision": 0, "dtype_numpy": "<i8"},
    float: {"units": "s", "precision": 4, "dtype_numpy": "<f8"},
    bool: {"dtype_numpy": "|b1"},
    str: {},
}
"""How values of a reading are described, by Python type: integers count frames, numbers are times."""


class ConverterBase:
    """The base of `PETifConverter` and `ConversionDevice`.

    Its methods never wait for the network and never fail because the server is down.

    Attributes
    ----------
    name: name of the device
    recipe: signal of the recipe for the next runs; `recipe.chosen` is None if none is set
    poller: polls the server in the background
    client: makes calls to the server; each blocks until it is answered
    runs: the frames of this session
    drain_timeout: seconds after which `trigger` is done even if frames are still pending (`drained` is then False)
    current_run: the run that `trigger` waits for, as set by a wrapper

    """

    name: str
    recipe: Any

    def __init__(self, address: str, drain_timeout: float, poller: Poller | None) -> None:
        self._own_poller: ServerPoller | None = None
        if poller is None:
            poller = self._own_poller = ServerPoller(Client(address))
        self.poller = poller
        self.client = poller.client
        self.runs = RunBook()
        self.drain_timeout = drain_timeout
        self.current_run: str | None = None
        self.shows_groups = False
        """Whether readings have the numbers of combined frames."""
        self._open_runs: WeakSet[Any] = WeakSet()
        self.reports = RunReports("")
        """Reports of the run last waited for, in order of completion."""
        self.reading = RunReading(RunStatistics(run_uid=""), 0, drained=False, taken=time.time())
        """The statistics of the run last waited for, which `read` returns."""

    def configure(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Set the recipe for the next runs; return the configuration before and after.

        This recipe is sent with each frame of this session. The server's own recipe, which all clients share, stays.

        Raises
        ------
        ValueError
            if `values` has another key than `recipe`, or its value is not a recipe.

        """
        before = self._configuration()
        unknown = sorted(values.keys() - {"recipe"})
        if unknown:
            raise ValueError(
                f"{self.name}: cannot configure {unknown[0]!r}: a session can only set 'recipe'. "
                "Change server settings on the server."
            )
        if "recipe" in values:
            self.recipe.put(values["recipe"])
        return before, self._configuration()

    def trigger(self) -> Completion:
        """Return a status that is done when every frame of the current run has a report; it never fails.

        The current run is the one set by a wrapper, or else the latest one seen by a callback of this session.
        """
        run_uid = self.current_run
        if run_uid is None or self.runs.is_closed(run_uid):
            run_uid = self.runs.newest_open() or run_uid
        return Completion(done=True) if run_uid is None else self.drain(run_uid)

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
            self.reading = reading
            self._renew(reading)
            taken(reading)

        return DrainStatus(
            self.name,
            run_uid,
            poller=self.poller,
            runs=self.runs,
            reports=kept,
            timeout=self.drain_timeout if timeout is None else timeout,
            taken=take,
            through_outages=through_outages,
            so_far=so_far,
        )

    def begin_run(self, run: object, *, combines: bool) -> None:
        """A run has opened; only if it `combines` frames, readings have the numbers of combined frames.

        Their fields never change while a run is open: the converter may be part of its baseline, which is read twice.
        """
        if not self._open_runs:
            self._show_groups(combines)
        self._open_runs.add(run)

    def end_run(self, run: object) -> None:
        """A run of `begin_run` is closed; a run that is dropped counts as closed, too."""
        self._open_runs.discard(run)

    def _show_groups(self, shown: bool) -> None:  # noqa: FBT001 - private
        self.shows_groups = shown

    def _configuration(self) -> dict[str, Any]:
        """Return the reading of the configuration."""
        raise NotImplementedError

    def _renew(self, reading: RunReading) -> None:
        """Show a new reading; called from the thread of a drain."""

    def _stage_run(self) -> None:
        """Prepare for a run; a run that has ended is not waited for again."""
        if self.current_run is not None and self.runs.is_closed(self.current_run):
            self.current_run = None

    @contextmanager
    def _first_answer(self) -> Iterator[Completion]:
        """Provide a status that is done once the server answers the background poller."""
        answered = Completion()

        def on_poll(server: ServerState) -> None:
            if server.connected:
                answered.finish()

        unwatch = self.poller.watch(on_poll)
        try:
            on_poll(self.poller.state)
            yield answered
        finally:
            unwatch()

    def _not_connected(self, timeout: float | None) -> str:
        """Return the message for a server that has not answered within `timeout` seconds."""
        return f"{self.name}: cannot connect to {self.client.address} within {timeout:g} s: {self.poller.state.error}"

    def _stop_polling(self) -> None:
        """Stop polling, unless the poller was passed in."""
        if self._own_poller is not None:
            self._own_poller.close()
