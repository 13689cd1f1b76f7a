"""Pause plans while the conversion is behind."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bluesky.suspenders import SuspenderBase

from petif_bluesky.converter_base import ConverterBase
from petif_bluesky.server_poller import ServerState


@dataclass(frozen=True, slots=True)
class Delay:
    """How far the conversion is behind.

    Attributes
    ----------
    queued: frames in the server's queue, from all its clients; the last known number while it does not answer
    waiting: frames in this session that the server has not accepted yet
    away: seconds since the server last answered, 0 if it does

    """

    queued: int
    waiting: int
    away: float

    @property
    def frames(self) -> int:
        """Number of frames without a report."""
        return self.queued + self.waiting


class DelaySignal:
    """What a suspender needs of a signal: it calls one function with the `Delay` after each poll of the server."""

    def __init__(self, converter: ConverterBase) -> None:
        self._converter = converter
        self._since = 0.0
        self._unwatch: Callable[[], None] = lambda: None
        self.delay = Delay(0, 0, 0.0)

    def subscribe(self, function: Callable[[Delay], None], **_ignored: Any) -> None:
        """Call `function` with the delay now, and after each poll from the poller's thread."""

        def on_poll(server: ServerState) -> None:
            self.delay = self._delay(server)
            function(self.delay)

        self._since = time.time()
        self._unwatch = self._converter.poller.watch(on_poll)
        on_poll(self._converter.poller.state)

    def clear_sub(self, _function: Callable[[Delay], None]) -> None:
        """Stop the calls."""
        self._unwatch()

    def _delay(self, server: ServerState) -> Delay:
        away = max(0.0, server.polled - max(server.seen, self._since)) if server.down else 0.0
        queued = server.attributes.get("QueueLength")
        return Delay(queued.value if queued else 0, self._converter.runs.spooled, away)


class ConverterBehind(SuspenderBase):
    """A bluesky suspender: a plan pauses while too many frames wait for their conversion, and resumes by itself.

    Use it as `RE.install_suspender(ConverterBehind(converter))`. The server is polled once a second, so a plan pauses
    up to a second late. As with any suspender, the RunEngine then repeats what follows the last checkpoint, and aborts
    a plan that has cleared it.

    Parameters
    ----------
    converter: the device that represents the server
    backlog: the plan pauses while more frames than this have no report, in the server's queue and in this session; it
        resumes at half of this
    away: the plan also pauses once the server has not answered for this many seconds, until it does; None for never
    options: those of bluesky's suspenders: `sleep`, `pre_plan`, `post_plan`, `tripped_message`

    """

    def __init__(
        self, converter: ConverterBase, backlog: int = 200, *, away: float | None = None, **options: Any
    ) -> None:
        for name, limit in (("backlog", backlog), ("away", away)):
            if limit is not None and not limit >= 0:
                raise ValueError(f"ConverterBehind: invalid {name} {limit!r}: it is negative. Pass 0 or more.")
        self._delays = DelaySignal(converter)
        super().__init__(self._delays, **options)
        self._converter = converter
        self._backlog = backlog
        self._away = away

    def __repr__(self) -> str:
        return f"ConverterBehind({self._converter.name}, backlog={self._backlog}, away={self._away})"

    def __call__(self, value: Delay, **kwargs: Any) -> None:
        """Suspend or resume; not while a user has paused the plan, because bluesky would lose the suspension."""
        engine = self.RE
        if engine is not None and engine.state != "paused":
            super().__call__(value, **kwargs)

    def _should_suspend(self, value: Delay) -> bool:
        return value.frames > self._backlog or self._is_away(value)

    def _should_resume(self, value: Delay) -> bool:
        return value.frames <= self._backlog // 2 and not self._is_away(value)

    def _is_away(self, delay: Delay) -> bool:
        return self._away is not None and delay.away > self._away

    def _get_justification(self) -> str:
        """Return what is behind, by how much, and what to do; empty while nothing is."""
        if not self.tripped:
            return ""
        delay, half = self._delays.delay, self._backlog // 2
        if self._is_away(delay):
            reason = (
                f"the conversion server has been away for {delay.away:.0f} s (limit {self._away:g} s; waiting "
                f"frames: {delay.frames}): {self._converter.poller.state.error} The plan resumes once the server "
                f"answers and no more than {half} are waiting."
            )
        else:
            reason = (
                f"the conversion is {delay.frames} frames behind (limit {self._backlog}): {delay.queued} in the queue "
                f"of {self._converter.client.address}, {delay.waiting} in this session. The plan resumes at {half}. If "
                "the number does not fall, check with `petif status` whether the server is paused or down."
            )
        return ": ".join(text for text in (f"{self._converter.name}: {reason}", self._tripped_message) if text)
