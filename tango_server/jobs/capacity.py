"""Limits of the queue and of the free disk space for outputs."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tango_server.text import counted


class NoRoomError(Exception):
    """No request of the call was accepted, for lack of room. The same call may succeed later."""


class BacklogFullError(NoRoomError):
    """Too many frames are waiting."""


class DiskFullError(NoRoomError):
    """A disk for outputs is nearly full."""


@dataclass(frozen=True, slots=True)
class FreeSpace:
    """The free space (bytes) of the fullest output folder, and that folder; None if no folder can be measured."""

    free: int | None = None
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Maximum length of the queue, minimum free space (bytes), and free space below which to warn."""

    backlog: int = 100_000
    free_space: int = 0
    free_space_warning: int = 0

    def require_room(self, waiting: int, coming: int, space: FreeSpace) -> None:
        """Raise `NoRoomError` if `coming` frames can't be accepted in addition to the `waiting` ones."""
        problem = self.disk_problem(space)
        if problem:
            raise DiskFullError(f"{problem} No frames were accepted. Free some space, then submit again.")
        if coming > self.backlog:
            raise BacklogFullError(
                f"Cannot accept {coming} frames in one call: backlog_limit is {self.backlog}. No frames were accepted. "
                "Submit them in several calls."
            )
        if waiting + coming > self.backlog:
            raise BacklogFullError(
                f"Cannot accept {counted(coming, 'frame')}: the queue holds {waiting}, and backlog_limit is "
                f"{self.backlog}. No frames were accepted. Submit them again when QueueLength has dropped."
            )

    def disk_problem(self, space: FreeSpace) -> str:
        """Return a message if a disk is full; empty if not."""
        if space.free is None or space.free >= self.free_space:
            return ""
        return f"{space.folder}: only {_size(space.free)} free, less than free_space_limit ({_size(self.free_space)})."

    def disk_warning(self, space: FreeSpace) -> str:
        """Return a warning if a disk is nearly full; empty if not."""
        if space.free is None or space.free >= self.free_space_warning:
            return ""
        return f"{space.folder}: only {_size(space.free)} free; below {_size(self.free_space)} no frames are accepted."


def measure(folders: Iterable[Path]) -> FreeSpace:
    """Measure the free space; a folder that does not exist yet counts as its nearest parent.

    A folder that can't be measured, for example on an unreachable file server, is left out.
    """
    found = FreeSpace()
    for folder in folders:
        free = _free(folder)
        if free is not None and (found.free is None or free < found.free):
            found = FreeSpace(free, folder)
    return found


def _free(folder: Path) -> int | None:
    try:
        existing = next((place for place in (folder, *folder.parents) if place.exists()), None)
        return None if existing is None else shutil.disk_usage(existing).free
    except OSError:
        return None


def _size(count: int) -> str:
    """Return a number of bytes for people.

    >>> _size(15_300_000_000), _size(20_000_000)
    ('15.3 GB', '20.0 MB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.1f} MB"
