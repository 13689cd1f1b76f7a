"""The stored state of a watched folder and its files."""

from dataclasses import dataclass
from typing import NamedTuple


class Identity(NamedTuple):
    """Identifies the content of a file. The inode is not part of it: on some SMB mounts it changes."""

    size: int
    mtime_ns: int


INTENDED = ""
NOTHING = Identity(-1, -1)
"""The identity of a missing file: differs from that of any later one."""


@dataclass(frozen=True, slots=True)
class Known:
    """One file of a watched folder.

    `job_id` is the job whose report is still to come, `INTENDED` if it is about to be or was just submitted, None if
    the file is at rest. `identity` is from when the file came to rest, before it was submitted, or from the last check
    during its job; None if not checked yet. `gone_since` (Unix s) is None for an existing file.
    """

    generation: int = 0
    identity: Identity | None = None
    job_id: str | None = None
    gone_since: float | None = None


@dataclass(frozen=True, slots=True)
class Past:
    """The stored state of a watched folder itself.

    `floor` is the first generation of a new name: above that of every forgotten one, so that a key is never used twice.
    `due` are the sub-folders not scanned yet, because outputs go there or they could not be listed at the first watch:
    files found there at their first scan are not new either.
    """

    watched_before: bool = False
    floor: int = 0
    due: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to be submitted."""

    name: str
    generation: int
