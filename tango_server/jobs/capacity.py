"""Whether there is room for more: in the queue, and on the disks that outputs go to."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


class NoRoomError(Exception):
    """Nothing of a call was accepted, since there is no room at present. The same call may succeed later."""


class BacklogFullError(NoRoomError):
    """Too many frames wait."""


class DiskFullError(NoRoomError):
    """A disk that outputs go to is nearly full."""


@dataclass(frozen=True, slots=True)
class FreeSpace:
    """The free space (bytes) of the fullest folder for outputs, and which that is; None if none can be asked."""

    free: int | None = None
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """How long the queue may become, and which free space (bytes) is too little or soon too little."""

    backlog: int = 100_000
    free_space: int = 0
    free_space_warning: int = 0

    def require_room(self, waiting: int, coming: int, space: FreeSpace) -> None:
        """Raise `NoRoomError` if `coming` frames can't be accepted beside those that wait."""
        trouble = self.disk_trouble(space)
        if trouble:
            raise DiskFullError(f"{trouble} Nothing was accepted; make room there, then submit again.")
        if coming > self.backlog:
            raise BacklogFullError(
                f"found {coming} frames in one call; expected at most {self.backlog} (backlog_limit). "
                "Nothing was accepted; submit them in several calls."
            )
        if waiting + coming > self.backlog:
            raise BacklogFullError(
                f"found {waiting} frames in the queue and {coming} more to come; expected at most {self.backlog} "
                "(backlog_limit). Nothing was accepted; submit again when QueueLength has fallen."
            )

    def disk_trouble(self, space: FreeSpace) -> str:
        """Return what is wrong with the disks, in words; empty: nothing."""
        if space.free is None or space.free >= self.free_space:
            return ""
        return f"{space.folder}: only {_size(space.free)} are free, below the limit of {_size(self.free_space)}."

    def disk_warning(self, space: FreeSpace) -> str:
        """Return what will soon be wrong with the disks, in words; empty: nothing."""
        if space.free is None or space.free >= self.free_space_warning:
            return ""
        return (
            f"{space.folder}: only {_size(space.free)} are free; "
            f"below {_size(self.free_space)} nothing is accepted any more."
        )


def measure(folders: Iterable[Path]) -> FreeSpace:
    """Ask the disks; a folder that does not exist yet counts as its nearest parent.

    One that can't be asked, as on a file server that is away, is left out.
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
