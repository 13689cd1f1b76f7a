"""Decides whether the dark frames of a run are complete on disk, by the rule of the frames themselves."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tango_server.backoff import Backoff
from tango_server.jobs.state_machine.events import Instant, ObservedDark
from tango_server.jobs.state_machine.readiness import ReadinessRule, Verdict, Wait, deadline_of, judge

_SIDECAR_POLLS = Backoff(shortest=0.1, factor=0.5)
_KNOWN_FOR = 60.0  # s


@dataclass(slots=True)
class DarkWaits:
    """What was observed of the darks that one frame is corrected with. Instants by the monotonic clock, in s.

    `missing` says which dark was not complete at the last poll, and why; empty if all were.
    """

    waits: dict[Path, Wait] = field(default_factory=dict)
    complete_since: float | None = None
    missing: str = ""
    deadline: float = 0.0

    def seen(
        self, darks: tuple[ObservedDark, ...], rule: ReadinessRule, now: Instant, sidecar_timeout: float
    ) -> Verdict:
        """Evaluate a poll of the darks; the verdict is `fail` for one that is not complete in time.

        A sidecar is awaited for `sidecar_timeout` seconds once all darks are complete. Without it the conversion
        decides.
        """
        self.missing = ""
        verdicts = [self._one_seen(dark, rule, now) for dark in darks]
        for dark, verdict in zip(darks, verdicts, strict=True):
            if verdict.kind == "give_up":
                return Verdict("fail", reason=f"cannot correct: its dark {dark.path}: {verdict.reason}")
        waiting = [verdict.again for verdict in verdicts if verdict.kind == "wait"]
        if waiting:
            self.complete_since = None
            return Verdict("wait", again=min(waiting))
        return self._sidecars_seen(darks, now.monotonic, sidecar_timeout) if darks else Verdict("ready")

    def _one_seen(self, dark: ObservedDark, rule: ReadinessRule, now: Instant) -> Verdict:
        wait, verdict = judge(rule, self.waits.get(dark.path, Wait()), dark.state, dark.problem, now)
        self.waits[dark.path] = wait
        if verdict.kind == "wait" and not self.missing:
            self.missing = f"its dark {dark.path}: {wait.found}"
            self.deadline = deadline_of(rule, wait, now.monotonic)
        return verdict

    def _sidecars_seen(self, darks: tuple[ObservedDark, ...], now: float, timeout: float) -> Verdict:
        if self.complete_since is None:
            self.complete_since = now
        without = next((dark.path for dark in darks if dark.lacks_sidecar), None)
        deadline = self.complete_since + timeout
        if without is None or now >= deadline:
            return Verdict("ready")
        self.missing, self.deadline = f"its dark {without}: no sidecar", deadline
        again = now + _SIDECAR_POLLS.after(now - self.complete_since)
        return Verdict("wait", again=min(again, deadline))


class ReadyDarks:
    """The darks that were found complete, so that they are not checked for each frame of a run.

    One that no frame has needed for a minute is checked again; the conversion fails if it has vanished.
    """

    def __init__(self) -> None:
        self._until: OrderedDict[Path, float] = OrderedDict()

    def add(self, files: Iterable[Path], now: float) -> None:
        """Note darks that are complete at `now` (monotonic s)."""
        for file in files:
            self._until[file] = now + _KNOWN_FOR
            self._until.move_to_end(file)
        while self._until and next(iter(self._until.values())) < now:
            self._until.popitem(last=False)

    def to_check(self, files: tuple[Path, ...], now: float) -> tuple[Path, ...]:
        """Return those of a frame's darks that are to be checked."""
        known = [file for file in files if self._until.get(file, now) > now]
        self.add(known, now)
        return tuple(file for file in files if file not in self._until)
