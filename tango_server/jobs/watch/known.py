"""What is known of a watched folder and its files."""

from dataclasses import dataclass
from typing import NamedTuple


class Identity(NamedTuple):
    """What tells one content of a file from the next. The inode does not: some SMB mounts make up new ones."""

    size: int
    mtime_ns: int


INTENDED = ""
NOTHING = Identity(-1, -1)
"""Of a file that was not there: whatever is there later is another one."""


@dataclass(frozen=True, slots=True)
class Known:
    """One file of a watched folder.

    `job_id` is the job whose report is still to come, `INTENDED` if it is to be submitted and may have been; None if
    the file is at rest. `identity` is what it was when it came to rest, before it was submitted, or at the last look
    while under way; None if it was not looked at yet. `gone_since` (Unix s) is None for a file that is there.
    """

    generation: int = 0
    identity: Identity | None = None
    job_id: str | None = None
    gone_since: float | None = None


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of a watched folder itself.

    `floor` is the generation that a new name starts with: above that of every forgotten one, so that a key is never
    used twice. `due` are the sub-folders that were not looked into so far, since outputs go there or they could not be
    listed at the first watch: what they hold when they are is no news either.
    """

    watched_before: bool = False
    floor: int = 0
    due: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to be submitted."""

    name: str
    generation: int
