"""Add messages to a plan that wait for the reports of a run's frames and emit them as events."""

from collections import deque
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.utils import IllegalMessageSequence, Msg, short_uid

from petif_bluesky.converter import PETifConverter
from petif_bluesky.plan_stubs.converted_stream import CONVERTED, UNCONVERTED, ConvertedFrames, FrameStream, in_order
from petif_bluesky.plan_stubs.start_facts import CONVERSION, has_facts, on_their_way
from petif_bluesky.signals.drain_status import DrainStatus, RunReading
from petif_bluesky.signals.run_reports import RunReports

Result = TypeVar("Result")
Plan = Generator[Msg, Any, Result]
Wait = Literal["run", "point"]

_LATE_TIMEOUT = 1.0
"""Timeout (s) for the frames of a point once those of an earlier point were not ready in time."""


class Drain:
    """A triggerable bluesky object that waits for the frames of one run; it can be triggered again after a pause.

    The RunEngine keeps triggered objects until its call ends, so `forget` drops everything about the run.
    """

    parent = None

    def __init__(self, converter: PETifConverter, reports: RunReports, *, through_outages: bool = False) -> None:
        self.name = converter.name
        self.timeout: float | None = None
        self.reading: RunReading | None = None
        self._converter = converter
        self._reports: RunReports | None = reports
        self._run_uid = reports.run_uid
        self._through_outages = through_outages
        self._status: DrainStatus | None = None

    def trigger(self) -> DrainStatus:
        """Return a status that is done when every frame of the run has a report; it never fails."""
        self.reading = None
        self._status = self._converter.drain(
            self._run_uid,
            reports=self._reports,
            timeout=self.timeout,
            taken=self._take,
            through_outages=self._through_outages,
        )
        return self._status

    def give_up(self) -> bool:
        """Stop waiting; return whether there is a reading."""
        if self._status is not None:
            self._status.give_up()
        return self.reading is not None

    def forget(self) -> None:
        """Drop everything about the run."""
        self._status = self._reports = self.reading = None

    def _take(self, reading: RunReading) -> None:
        self.reading = reading


@dataclass(slots=True)
class _Run:
    reports: RunReports
    frames: ConvertedFrames
    drain: Drain
    drained: bool = True
    submitted: int = 0
    """Number of frames that were waited for after a point."""
    seen: int = 0
    """Number of reports processed."""
    pending: deque[int] = field(default_factory=deque)
    """Indices in `reports` of those without an event yet."""

    @property
    def uid(self) -> str:
        return self.reports.run_uid


class RunWrapper:
    """A wrapped plan and its open runs, by run key.

    It waits for the reports of a run for at most the converter's `drain_timeout`. Plans that exist only to convert pass
    their own `timeout` (s) instead, which also covers outages of the server.
    """

    def __init__(
        self,
        converter: PETifConverter,
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

    def wrapped(self, plan: Plan[Result]) -> Plan[Result]:
        """Return the wrapped plan; the results of runs that it leaves open are emitted as well."""
        try:
            result = yield from self._mutated(plan)
        except Exception:
            yield from self._left_open()
            raise
        yield from self._left_open()
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
        if msg.command == "open_run" and not has_facts(msg.kwargs.get(CONVERSION)):
            return (yield from self._opened(msg))
        if msg.command == "close_run" and msg.run in self._runs:
            return (yield from self._closed(msg, self._runs.pop(msg.run)))
        answer = yield msg
        may_bring_frames = msg.command in {"save", "collect"} and not self._is_ours(stream)
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

    def _is_ours(self, stream: str) -> bool:
        return stream in {self._stream, CONVERTED, UNCONVERTED} or stream.startswith(f"{CONVERTED}-")

    def _opened(self, msg: Msg) -> Plan[str]:
        facts = self._facts(msg.kwargs.get(CONVERSION) or {})
        with on_their_way(facts):
            uid: str = yield msg._replace(kwargs={**msg.kwargs, CONVERSION: facts})
        self._converter.current_run = uid
        reports = RunReports(uid)
        drain = Drain(self._converter, reports, through_outages=self._timeout is not None)
        self._runs[msg.run] = _Run(reports, ConvertedFrames(self._converter.name), drain)
        return uid

    def _closed(self, msg: Msg, run: _Run) -> Plan[Any]:
        yield from self._finished(run, msg.run)
        return (yield msg)

    def _left_open(self) -> Plan[None]:
        """Emit the results of runs that the plan left open: the RunEngine closes them itself, without messages."""
        while self._runs:
            key, run = self._runs.popitem()
            yield from self._finished(run, key)

    def _finished(self, run: _Run, key: Any) -> Plan[None]:
        """Emit the results of a run, then drop its state, even if interrupted."""
        try:
            yield from self._own(self._finish(run, key), key)
        finally:
            run.drain.forget()
            run.frames.forget()

    def _finish(self, run: _Run, key: Any) -> Plan[None]:
        self._converter.current_run = run.uid
        yield from self._dropped(key)  # if the plan failed within an event, that error is the one to show
        yield from self._checkpoint()  # otherwise resuming after a pause would repeat the last point
        try:
            yield from self._drained(run, None)
            yield from self._emit_frames(run)
        except Exception:  # the plan is being ended: emit what is known
            if run.drain.give_up():
                yield from self._dropped(key)
                yield from self._emit(self._stream, self._converter)
            raise
        yield from self._emit(self._stream, self._converter)

    def _point(self, run: _Run) -> Plan[None]:
        """Wait for the frames of one point; after a late one, wait only briefly for those of later points."""
        submitted = self._converter.runs.submitted(run.uid)
        if submitted <= run.submitted:
            return
        run.submitted = submitted
        self._converter.current_run = run.uid
        yield from self._checkpoint()
        yield from self._drained(run, None if run.drained else _LATE_TIMEOUT)
        yield from self._emit_frames(run)

    def _drained(self, run: _Run, timeout: float | None) -> Plan[None]:
        limit = self._converter.drain_timeout if self._timeout is None else self._timeout
        limit = limit if timeout is None else min(timeout, limit)
        run.drain.timeout = limit
        group = short_uid("conversion")
        yield from bps.trigger(run.drain, group=group)
        yield from bps.wait(group=group)
        if run.drain.reading is not None:
            run.drained = run.drain.reading.drained

    def _emit_frames(self, run: _Run) -> Plan[None]:
        new = in_order(run.reports, run.seen)
        run.seen += len(new)
        run.pending += new
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
