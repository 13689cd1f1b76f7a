"""Is the file complete on disk? A rule over what was seen of it and when, without any I/O.

Structure first: a TIFF whose directory follows its pixels is complete when it parses (see
`tango_server.conversion.tiff.structure`). For every other TIFF, size and modification time must hold still for
`settle_time` by this host's monotonic clock, since the clocks of file servers are skewed.
"""

from dataclasses import dataclass, replace
from typing import Literal

from tango_server.backoff import Backoff
from tango_server.conversion.tiff.structure import Structure
from tango_server.jobs.state_machine.events import Instant

_POLLS = Backoff(shortest=0.02, factor=0.1)  # a file that has been awaited for t seconds is looked at every t/10
_LONGEST_INTERVAL = 0.5


@dataclass(frozen=True, slots=True)
class ReadinessRule:
    """When a file counts as complete. Times in s, sizes in bytes.

    `settle_time` holds for files whose structure proves nothing, `settle_complete` for complete ones (0 on local disks,
    1 on network storage that may reorder writes). After `timeout` the wait is given up.
    With `by_age` only size and age count, as PETifConverter had it: at least `min_size`, and either modified more than
    `settle_time` ago by the wall clocks of this host and of the file server, or seen still for so long.
    """

    settle_time: float = 3.0
    settle_complete: float = 0.0
    min_size: int = 0
    timeout: float = 15.0
    by_age: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """What is known of a file that is awaited; all instants by the monotonic clock."""

    since: float | None = None
    """The first look; None before it. A backlog of looks is not the file's fault."""
    identity: tuple[int, int, int] | None = None
    still_since: float = 0.0
    found: str = "it was not looked at"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do about an awaited file.

    It is `ready`, to be looked at again at `again` (monotonic, s), or given up for `reason`.
    """

    kind: Literal["ready", "wait", "give_up"]
    again: float = 0.0
    reason: str = ""


def judge(
    rule: ReadinessRule, wait: Wait, structure: Structure | None, trouble: str, now: Instant
) -> tuple[Wait, Verdict]:
    """Return what is known after one more look, and the verdict.

    `structure` is None if there is no file; `trouble` tells of a file that is there but can't be read.
    """
    instant = now.monotonic
    if wait.since is None:
        wait = replace(wait, since=instant)
    if structure is None:
        wait = replace(wait, identity=None, still_since=instant, found=trouble or "no such file")
        return wait, _later(rule, wait, instant, instant + _LONGEST_INTERVAL)
    identity = (structure.inode, structure.size, structure.mtime_ns)
    if identity != wait.identity:
        wait = replace(wait, identity=identity, still_since=instant)
    if structure.size < rule.min_size:
        wait = replace(wait, found=f"it has {structure.size} bytes, fewer than min_size={rule.min_size}")
        return wait, _later(rule, wait, instant, instant + _LONGEST_INTERVAL)
    if structure.state == "incomplete" and not rule.by_age:
        wait = replace(wait, found=structure.problem)
        return wait, _later(rule, wait, instant, instant + _LONGEST_INTERVAL)
    if rule.by_age:
        settle, still_for = rule.settle_time, max(instant - wait.still_since, now.wall - structure.mtime_ns / 1e9)
    else:
        proven = structure.state == "complete" and structure.ifd_last
        settle, still_for = rule.settle_complete if proven else rule.settle_time, instant - wait.still_since
    if still_for < settle:
        wait = replace(wait, found=f"it is still changing, or has not been still for {settle:g} s yet")
        return wait, _later(rule, wait, instant, instant + settle - still_for)
    # A file that is no TIFF goes on too: the conversion names what is wrong with it.
    return wait, Verdict("ready")


def deadline_of(rule: ReadinessRule, wait: Wait, now: float) -> float:
    """Return when an awaited file is given up; as long as it was not looked at, that is counted from `now`."""
    return (now if wait.since is None else wait.since) + rule.timeout


def _later(rule: ReadinessRule, wait: Wait, now: float, latest: float) -> Verdict:
    deadline = deadline_of(rule, wait, now)
    if now >= deadline:
        return Verdict(
            "give_up",
            reason=f"not complete within {rule.timeout:g} s: {wait.found}. "
            "Check whether the detector wrote it, then try it again (RetryFailed, petif retry).",
        )
    interval = _POLLS.after(now - deadline + rule.timeout)
    return Verdict("wait", again=min(now + interval, max(latest, now + _POLLS.shortest), deadline))
