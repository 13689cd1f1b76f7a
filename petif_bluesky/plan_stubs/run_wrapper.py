"""Add messages to a plan that wait for the reports of a run's frames and emit them as events."""

import logging
from collections import deque
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.utils import IllegalMessageSequence, Msg, short_uid

from petif_bluesky.converter_base import ConverterBase
from petif_bluesky.documents.bookings import CONVERSION, Booking, booking_in
from petif_bluesky.documents.document_counts import DocumentCounts
from petif_bluesky.documents.groups import combine_of
from petif_bluesky.documents.run_recipe import recipe_of_run
from petif_bluesky.documents.selection import is_own_stream
from petif_bluesky.plan_stubs.converted_stream import ConvertedFrames, FrameStream, in_order, is_there
from petif_bluesky.plan_stubs.drain import Drain
from petif_bluesky.plan_stubs.map_tables import write_tables_of
from petif_bluesky.plan_stubs.start_facts import Owner, on_their_way, place_of, require_other_output
from petif_bluesky.signals.drain_status import RunSoFar
from petif_bluesky.signals.run_reports import RunReports
from tango_server.messages import FrameReport, GroupReport

_log = logging.getLogger(__name__)

Result = TypeVar("Result")
Plan = Generator[Msg, Any, Result]
Wait = Literal["run", "point"] | None

_LATE_TIMEOUT = 1.0
"""Timeout (s) for the frames of a point once those of an earlier point were not ready in time."""
_AT_ONCE = 0.2
"""Timeout (s) of a run that is not waited for: one answer of the server."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class _Run:
    booking: Booking
    reports: RunReports
    frames: ConvertedFrames
    drain: Drain
    drained: bool = True
    submitted: int = 0
    """Number of frames that were waited for after a point."""
    emitted: int = 0
    """Number of events and stream datum indices at that time, if another process submits the frames."""
    seen: int = 0
    """Number of reports processed."""
    pending: deque[int] = field(default_factory=deque)
    """Indices in `reports` of those without an event yet."""

    combined: set[str] = field(default_factory=set)
    """Groups with an event."""

    @property
    def uid(self) -> str:
        return self.reports.run_uid

    def takes(self, report: FrameReport) -> bool:
        """Return whether a report gets an event: a group that was combined again has one already."""
        if not isinstance(report, GroupReport) or report.group is None or not is_there(report):
            return True
        is_new = report.group not in self.combined
        self.combined.add(report.group)
        return is_new


class RunWrapper:
    """A wrapped plan and its open runs, by run key.

    It waits for the reports of a run for at most the converter's `drain_timeout`. Plans that exist only to convert pass
    their own `timeout` (s) instead, which also covers outages of the server.
    """

    def __init__(
        self,
        converter: ConverterBase,
        facts: Callable[[Any], Mapping[str, Any]],
        *,
        stream: str = CONVERSION,
        wait: Wait = "run",
        timeout: float | None = None,
    ) -> None:
        self._converter = converter
        self._facts = facts
        self._stream = stream
        self._wait = wait
        self._timeout = timeout
        self._runs: dict[Any, _Run] = {}
        self._bundling: dict[Any, str] = {}
        self._rewindable = True
        self._emitted = DocumentCounts()
        self._starts: dict[str, Mapping[str, Any]] = {}
        self._subscription: int | None = None

    def wrapped(self, plan: Plan[Result]) -> Plan[Result]:
        """Return the wrapped plan; the results of runs that it leaves open are emitted as well."""
        try:
            result = yield from self._mutated(plan)
        except Exception:  # passed on once the results are emitted
            yield from self._end()
            raise
        yield from self._end()
        return result

    def _mutated(self, plan: Plan[Result]) -> Plan[Result]:
        """Yield the messages of a plan, with those to be added before and after them.

        Like bluesky's `plan_mutator`, which however keeps every message in memory until the plan ends.
        """
        answer: Any = None
        failure: Exception | None = None
        while True:
            try:
                msg = plan.send(answer) if failure is None else plan.throw(failure)
            except StopIteration as ended:
                return cast("Result", ended.value)
            answer = failure = None
            try:
                answer = yield from self._around(msg)
            except GeneratorExit:
                plan.close()
                raise
            except Exception as error:  # noqa: BLE001 - passed to the plan, which may handle it
                failure = error

    def _around(self, msg: Msg) -> Plan[Any]:
        stream = self._track(msg)
        if msg.command == "open_run" and (key := place_of(self._converter, msg.kwargs)) is not None:
            return (yield from self._opened(msg, key))
        if msg.command == "close_run" and msg.run in self._runs:
            return (yield from self._closed(msg, self._runs.pop(msg.run)))
        answer = yield msg
        may_bring_frames = msg.command in {"save", "collect"} and not is_own_stream(stream)
        if self._wait == "point" and msg.run in self._runs and may_bring_frames:
            yield from self._own(self._point(self._runs[msg.run]), msg.run)
        return answer

    def _own(self, plan: Plan[Result], key: Any) -> Plan[Result]:
        """Return one of our own plans, for the run with that key."""
        return self._mutated(plan if key is None else bpp.set_run_key_wrapper(plan, key))

    def _track(self, msg: Msg) -> str:
        """Track whether checkpoints are possible; return the stream of an event or page that the message saves."""
        match msg.command:
            case "create":
                self._bundling[msg.run] = str(msg.kwargs.get("name") or msg.args[0])
            case "save" | "drop":
                return self._bundling.pop(msg.run, "")
            case "collect" if isinstance(msg.obj, FrameStream):
                return msg.obj.stream
            case "checkpoint":
                self._rewindable = True
            case "clear_checkpoint":
                self._rewindable = False
        return ""

    def _opened(self, msg: Msg, key: str) -> Plan[str]:
        facts = self._facts(msg.kwargs.get(key))
        require_other_output(self._converter, facts, msg.kwargs)
        if self._subscription is None:
            self._subscription = yield Msg("subscribe", None, self._count, "all")
        with on_their_way(facts, Owner(self._converter, alone=self._timeout is not None)):
            uid: str = yield msg._replace(kwargs={**msg.kwargs, key: facts})
        start = self._starts.pop(uid, None) or {"uid": uid or "", key: facts}  # no documents and no uid in a dry run
        booking = booking_in(start, self._converter.name, self._converter.client.address)
        self._converter.current_run = booking.run_uid
        reports = RunReports(booking.run_uid)
        run = self._runs[msg.run] = _Run(
            booking,
            reports,
            ConvertedFrames(self._converter.name, booking.stream),
            Drain(
                self._converter, reports, self._so_far(booking, start, facts), through_outages=self._timeout is not None
            ),
        )
        self._converter.begin_run(run, combines=_combines(start.get(booking.key)))
        return uid

    def _count(self, name: str, document: Mapping[str, Any]) -> None:
        """Process a document of the RunEngine: what it emits is to be read by the callback."""
        if name == "start":
            self._starts = {document["uid"]: document}
        self._emitted(name, document)

    def _so_far(self, booking: Booking, start: Mapping[str, Any], facts: Mapping[str, Any]) -> Callable[[], RunSoFar]:
        """Return what gives the state of a run; the RunEngine may have replaced its facts by those of the call."""
        text, problem, submits_itself = "", "", self._timeout is not None
        try:
            recipe = recipe_of_run(facts if submits_itself else start.get(booking.key)).recipe
        except ValueError as error:
            problem = str(error)
        else:
            text = recipe.model_dump_json() if recipe else ""
            if recipe is None and facts["recipe_source"] == "run":
                problem = f"{booking.key} of the RunEngine's call replaced the recipe by none: the server's was used"

        def so_far() -> RunSoFar:
            return RunSoFar(None if submits_itself else self._emitted.of(booking.run), None, text, problem)

        return so_far

    def _closed(self, msg: Msg, run: _Run) -> Plan[Any]:
        yield from self._finished(run, msg.run)
        return (yield msg)

    def _end(self) -> Plan[None]:
        """Emit the results of runs that the plan left open: the RunEngine closes them itself, without messages."""
        while self._runs:
            key, run = self._runs.popitem()
            yield from self._finished(run, key)
        if self._subscription is not None:
            yield Msg("unsubscribe", None, self._subscription)

    def _finished(self, run: _Run, key: Any) -> Plan[None]:
        """Emit the results of a run, then drop its state, even if interrupted."""
        try:
            yield from self._own(self._finish(run, key), key)
        finally:
            run.drain.forget()
            run.frames.forget()
            self._converter.end_run(run)
            self._emitted.forget(run.booking.run)

    def _finish(self, run: _Run, key: Any) -> Plan[None]:
        self._converter.current_run = run.uid
        yield from self._dropped(key)  # if the plan failed within an event, that error is the one to show
        yield from self._checkpoint()  # otherwise resuming after a pause would repeat the last point
        self._converter.runs.release(run.uid)
        try:
            yield from self._drained(run, None)
            if self._asks_for_placeholders(run):
                yield from self._drained(run, None)
            self._note_unfinished(run)
            yield from self._emit_frames(run)
        except Exception:  # the plan is being ended: emit what is known
            if run.drain.give_up():
                yield from self._dropped(key)
                yield from self._emit(run.booking.stream(self._stream), self._converter)
            raise
        yield from self._emit(run.booking.stream(self._stream), self._converter)
        if (reading := run.drain.reading) is not None:
            write_tables_of(run.reports, reading.recipe)

    def _asks_for_placeholders(self, run: _Run) -> bool:
        """Request placeholders for the points of a map whose frames failed; return whether there are any."""
        reading = run.drain.reading
        failed = reading is not None and (reading.statistics.failed or reading.statistics.groups_failed)
        return bool(failed and self._converter.runs.fill_map(run.uid, run.reports))

    def _point(self, run: _Run) -> Plan[None]:
        """Wait for the frames of one point; after a late one, wait only briefly for those of later points."""
        submitted, emitted = self._converter.runs.submitted(run.uid), 0
        if not self._converter.runs.knows(run.uid):  # another process submits the frames of these documents
            emitted = sum(self._emitted.of(run.booking.run).values())
        if submitted <= run.submitted and emitted <= run.emitted:
            return
        run.submitted, run.emitted = submitted, emitted
        self._converter.current_run = run.uid
        yield from self._checkpoint()
        yield from self._drained(run, None if run.drained else _LATE_TIMEOUT)
        yield from self._emit_frames(run)

    def _drained(self, run: _Run, timeout: float | None) -> Plan[None]:
        limit = self._converter.drain_timeout if self._timeout is None else self._timeout
        limit = _AT_ONCE if self._wait is None else limit
        run.drain.timeout = limit if timeout is None else min(timeout, limit)
        group = short_uid("conversion")
        yield from bps.trigger(run.drain, group=group)
        yield from bps.wait(group=group)
        if (reading := run.drain.reading) is not None:
            run.drained = reading.drained

    def _note_unfinished(self, run: _Run) -> None:
        if (reading := run.drain.reading) is not None and not reading.drained:
            _log.warning(
                "run %s: closed before all frames were converted: %s. So far: %d submitted, %d converted, %d failed. "
                "The others are converted later; their numbers are then in the server and the catalogue.",
                run.uid,
                reading.problem,
                reading.submitted,
                reading.statistics.converted,
                reading.statistics.failed,
            )

    def _emit_frames(self, run: _Run) -> Plan[None]:
        new = range(run.seen, len(run.reports))
        run.pending += (place for place in in_order(run.reports, new) if run.takes(run.reports[place]))
        run.seen = new.stop
        while run.pending:
            stream = run.frames.show(run.reports, run.pending)
            yield from stream.messages()
            yield from self._checkpoint()
            stream.emitted = True

    def _emit(self, stream: str, readable: Any) -> Plan[None]:
        yield Msg("create", name=stream)
        yield Msg("read", readable)
        yield Msg("save")

    def _checkpoint(self) -> Plan[None]:
        """Make a checkpoint if possible: not within an event of any run, nor where the plan cleared them."""
        if self._rewindable and not self._bundling:
            yield Msg("checkpoint")

    def _dropped(self, key: Any) -> Plan[None]:
        if key not in self._bundling:
            return
        try:
            yield from bps.drop()
        except IllegalMessageSequence:  # dropped by a pause
            self._bundling.pop(key, None)


def _combines(facts: Any) -> bool:
    """Return whether the frames of a run are combined."""
    return isinstance(facts, Mapping) and combine_of(facts.get("recipe")) is not None
