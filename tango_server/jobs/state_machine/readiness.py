"""Decides whether a file is complete on disk, from earlier observations, without any I/O.

Proof first: a file whose format proves that it is complete is ready, such as a TIFF whose directory follows its pixels.
For every other file, size and modification time must stay unchanged for `settle_time` by this host's monotonic clock,
since the clocks of file servers are skewed.
"""

from dataclasses import dataclass, replace
from typing import Literal

from tango_server.backoff import Backoff
from tango_server.conversion.file_state import FileState
from tango_server.jobs.state_machine.events import Instant

_POLLS = Backoff(shortest=0.02, factor=0.1)  # a file that has been awaited for t seconds is polled every t/10
_LONGEST_INTERVAL = 0.5


@dataclass(frozen=True, slots=True)
class ReadinessRule:
    """When a file counts as complete. Times in s, sizes in bytes.

    `settle_time` applies to files whose format proves nothing, `settle_complete` to complete ones (0 on local disks,
    1 on network storage that may reorder writes). After `timeout` the job fails.
    With `by_age` only size and age count, as in PETifConverter: at least `min_size`, and either modified more than
    `settle_time` ago by the wall clocks of this host and the file server, or unchanged for that long.
    """

    settle_time: float = 3.0
    settle_complete: float = 0.0
    min_size: int = 0
    timeout: float = 15.0
    by_age: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Observations of an awaited file; all instants by the monotonic clock."""

    since: float | None = None
    """The first poll; None before it. A backlog of polls does not count against the file."""
    identity: tuple[int, int, int] | None = None
    still_since: float = 0.0
    found: str = "not checked yet"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with an awaited file.

    It is `ready`, to be polled again at `again` (monotonic s), or given up for `reason`. `fail`: its job fails, since
    another file that it needs was given up.
    """

    kind: Literal["ready", "wait", "give_up", "fail"]
    again: float = 0.0
    reason: str = ""


def judge(rule: ReadinessRule, wait: Wait, state: FileState | None, problem: str, now: Instant) -> tuple[Wait, Verdict]:
    """Return the updated wait after a poll, and the verdict.

    `state` is None if there is no file; `problem` says why an existing file can't be read.
    """
    instant = now.monotonic
    if wait.since is None:
        wait = replace(wait, since=instant)
    if state is None:
        wait = replace(wait, identity=None, still_since=instant, found=problem or "no such file")
        return wait, _later(rule, wait, instant, instant + _LONGEST_INTERVAL)
    if state.identity != wait.identity:
        wait = replace(wait, identity=state.identity, still_since=instant)
    if state.size < rule.min_size:
        wait = replace(wait, found=f"only {state.size} bytes, min_size is {rule.min_size}")
        return wait, _later(rule, wait, instant, instant + _LONGEST_INTERVAL)
    if state.state == "incomplete" and not rule.by_age:
        wait = replace(wait, found=state.problem)
        return wait, _later(rule, wait, instant, instant + _LONGEST_INTERVAL)
    if rule.by_age:
        settle, still_for = rule.settle_time, max(instant - wait.still_since, now.wall - state.mtime_ns / 1e9)
    else:
        settle, still_for = rule.settle_complete if state.proof else rule.settle_time, instant - wait.still_since
    if still_for < settle:
        wait = replace(wait, found=f"still changing, or unchanged for less than {settle:g} s")
        return wait, _later(rule, wait, instant, instant + settle - still_for)
    # A damaged file, or one of an unknown kind, is ready, too: the conversion reports the error.
    return wait, Verdict("ready")


def deadline_of(rule: ReadinessRule, wait: Wait, now: float) -> float:
    """Return when an awaited file is given up; before its first poll, counted from `now`."""
    return (now if wait.since is None else wait.since) + rule.timeout


def _later(rule: ReadinessRule, wait: Wait, now: float, latest: float) -> Verdict:
    deadline = deadline_of(rule, wait, now)
    if now >= deadline:
        return Verdict(
            "give_up",
            reason=f"not complete within {rule.timeout:g} s: {wait.found}. "
            "Check whether the detector wrote it, then retry (RetryFailed, petif retry).",
        )
    interval = _POLLS.after(now - deadline + rule.timeout)
    return Verdict("wait", again=min(now + interval, max(latest, now + _POLLS.shortest), deadline))
