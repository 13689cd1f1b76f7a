"""What a wrapper adds to the messages of a plan: waiting for the reports of a run's frames, and telling them."""

from collections import deque
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.utils import IllegalMessageSequence, Msg, short_uid

from petif_bluesky.converter import PETifConverter
from petif_bluesky.plan_stubs.converted_stream import CONVERTED, UNCONVERTED, ConvertedFrames, in_order
from petif_bluesky.plan_stubs.start_facts import CONVERSION, has_facts, on_their_way
from petif_bluesky.signals.drain_status import DrainStatus, RunReading
from petif_bluesky.signals.run_reports import RunReports

Result = TypeVar("Result")
Plan = Generator[Msg, Any, Result]
Wait = Literal["run", "point"]

_SHORT_PATIENCE = 1.0
"""Seconds to wait for the frames of a point after those of an earlier one were not ready in time."""


class Drain:
    """The waiting for one run, as bluesky triggers it: each time anew, so that a pause may repeat it.

    The RunEngine keeps what it has triggered until its call ends: after `forget` nothing of the run is in here.
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
        """Return a status that is done when every frame of the run has its report; it never fails."""
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
        """The run is over."""
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
    """Frames of points that were waited for."""
    known: int = 0
    """Reports that were looked at."""
    untold: deque[int] = field(default_factory=deque)
    """Their places in `reports`, of those that have no event yet."""

    @property
    def uid(self) -> str:
        return self.reports.run_uid


class RunWrapper:
    """One wrapped plan and its open runs, by their run keys.

    The reports of a run are waited for as long as the converter says. A `timeout` (s) of the plan's own, for plans that
    are there to convert, goes before that, and holds while the server is out of reach, too.
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
        """Return the plan with what is added to it; what becomes of runs that it leaves open is told, too."""
        try:
            result = yield from self._steered(plan)
        except Exception:
            yield from self._left_open()
            raise
        yield from self._left_open()
        return result

    def _steered(self, plan: Plan[Result]) -> Plan[Result]:
        """Yield the messages of a plan, with what belongs before and behind them.

        As bluesky's `plan_mutator`, which would keep every message of a night until the plan has ended.
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
            except Exception as error:  # noqa: BLE001 - it is for the plan, which may go on nevertheless
                failure = error

    def _around(self, msg: Msg) -> Plan[Any]:
        stream = self._note(msg)
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
        """Return a plan of ours for the run of that key."""
        return self._steered(plan if key is None else bpp.set_run_key_wrapper(plan, key))

    def _note(self, msg: Msg) -> str:
        """Keep in mind what a message means for checkpoints; return the stream of an event that it saves."""
        match msg.command:
            case "create":
                self._bundling[msg.run] = str(msg.kwargs.get("name") or msg.args[0])
            case "save" | "drop":
                return self._bundling.pop(msg.run, "")
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
        """Tell what became of runs that the plan has not closed: the RunEngine closes them itself, without messages."""
        while self._runs:
            key, run = self._runs.popitem()
            yield from self._finished(run, key)

    def _finished(self, run: _Run, key: Any) -> Plan[None]:
        """Tell the end of a run; hold nothing of it then, also if that was interrupted."""
        try:
            yield from self._own(self._finish(run, key), key)
        finally:
            run.drain.forget()
            run.frames.forget()

    def _finish(self, run: _Run, key: Any) -> Plan[None]:
        self._converter.current_run = run.uid
        yield from self._dropped(key)  # the plan has failed within an event, and that is what people should read
        yield from self._checkpoint()  # or a pause and resume would take the last point again
        try:
            yield from self._drained(run, None)
            yield from self._tell_frames(run)
        except Exception:  # the plan is to end now: say what is known, and let it
            if run.drain.give_up():
                yield from self._dropped(key)
                yield from self._tell(self._stream, self._converter)
            raise
        yield from self._tell(self._stream, self._converter)

    def _point(self, run: _Run) -> Plan[None]:
        """Wait for the frames of one point; one that comes too late lets the later ones have little time."""
        submitted = self._converter.runs.submitted(run.uid)
        if submitted <= run.submitted:
            return
        run.submitted = submitted
        self._converter.current_run = run.uid
        yield from self._checkpoint()
        yield from self._drained(run, None if run.drained else _SHORT_PATIENCE)
        yield from self._tell_frames(run)

    def _drained(self, run: _Run, timeout: float | None) -> Plan[None]:
        limit = self._converter.drain_timeout if self._timeout is None else self._timeout
        limit = limit if timeout is None else min(timeout, limit)
        run.drain.timeout = limit
        group = short_uid("conversion")
        yield from bps.trigger(run.drain, group=group)
        yield from bps.wait(group=group)
        if run.drain.reading is not None:
            run.drained = run.drain.reading.drained

    def _tell_frames(self, run: _Run) -> Plan[None]:
        new = in_order(run.reports, run.known)
        run.known += len(new)
        run.untold += new
        while run.untold:
            stream = run.frames.show(run.reports[run.untold.popleft()])
            yield from self._tell(stream.stream, stream)
            yield from self._checkpoint()

    def _tell(self, stream: str, readable: Any) -> Plan[None]:
        yield Msg("create", name=stream)  # each of bluesky's plan stubs writes down who has called it: half of the time
        yield Msg("read", readable)
        yield Msg("save")

    def _checkpoint(self) -> Plan[None]:
        """Make a checkpoint, where one may be: not within an event of any run, nor where the plan wants none."""
        if self._rewindable and not self._bundling:
            yield Msg("checkpoint")

    def _dropped(self, key: Any) -> Plan[None]:
        if key not in self._bundling:
            return
        try:
            yield from bps.drop()
        except IllegalMessageSequence:  # a pause has dropped it
            self._bundling.pop(key, None)
