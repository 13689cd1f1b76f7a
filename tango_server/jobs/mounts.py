"""Checks that the roots are still on the file systems that were mounted when the server started.

An unmounted file system leaves an empty folder: files written there are hidden once it is mounted again.
"""

import logging
import os
import re
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

_log = logging.getLogger(__name__)

_MOUNTS = Path("/proc/self/mountinfo")


class Mount(NamedTuple):
    """One line of Linux' mountinfo (proc(5)): mount point, type and source of a file system."""

    point: str
    kind: str
    source: str


class Place(NamedTuple):
    """The file system of a folder: its device number, and its mount if the system provides that."""

    device: int
    mount: Mount | None = None

    def __str__(self) -> str:
        if self.mount is None:
            return f"device {self.device}"
        return f"{self.mount.source} ({self.mount.kind}) on {self.mount.point}"


PlaceOf = Callable[[Path, Place | None], Place | None]


class Mounts:
    """The file systems of folders, as first seen. Any thread may call.

    A network file system may get another device number at each mount: it counts as the same if source and mount point
    are the same. One that is mounted only after the server has started is accepted.
    """

    def __init__(self, roots: Iterable[Path], place_of: "PlaceOf | None" = None) -> None:
        self._place_of = place_of or place
        self._lock = threading.Lock()
        self._noted: dict[Path, Place] = {}
        self._problems: dict[Path, str] = {}
        self.problem_of(*roots)

    @property
    def last_problem(self) -> str:
        """The first problem of the last checks; accesses no file system. Empty if there is none."""
        with self._lock:
            return next(iter(self._problems.values()), "")

    def check(self) -> None:
        """Check all of them; may block for as long as a file server does."""
        with self._lock:
            roots = tuple(self._noted)
        self.problem_of(*roots)

    def problem_of(self, *roots: Path) -> str:
        """Check some roots; return the problem of the first one whose file system has changed, empty if none has."""
        first = ""
        for root in dict.fromkeys(roots):
            with self._lock:
                noted = self._noted.get(root)
            problem = self._compared(root, self._place_of(root, noted))
            first = first or problem
        return first

    def _compared(self, root: Path, now: Place | None) -> str:
        with self._lock:
            noted = self._noted.get(root)
            if noted is None:
                if now is not None:
                    self._noted[root] = now
                return ""
            same = now is not None and (now.device == noted.device or _is_same(now.mount, noted.mount))
            before = self._problems.pop(root, "")
            if same and now is not None:
                self._noted[root] = now
                if before:
                    _log.warning("%s: the file system is back", root)
                return ""
            found = "none" if now is None else str(now)
            problem = self._problems[root] = (
                f"{root}: the file system is not mounted any more (was {noted}, is {found}). Frames wait until it is "
                "mounted again. If the change is intended, call Init."
            )
        if not before:
            _log.error("%s", problem)
        return problem


def place(folder: Path, noted: Place | None = None) -> Place | None:
    """Return the file system of a folder, or of its nearest existing parent; None if unknown.

    If the device is that of `noted`, that is returned: this takes only one stat, and is done for each frame.
    """
    for existing in (folder, *folder.parents):
        try:
            device = os.stat(f"{existing}/.").st_dev  # noqa: PTH116 - the dot triggers an automount
        except FileNotFoundError:
            continue
        except OSError:
            return None
        return noted if noted is not None and noted.device == device else Place(device, _mount_of(existing))
    return None


def _is_same(now: Mount | None, noted: Mount | None) -> bool:
    """Whether a mount is the noted one, or was added since between its mount point and the folder."""
    if now is None or noted is None:
        return False
    return now == noted or (now.point != noted.point and Path(now.point).is_relative_to(noted.point))


def _mount_of(folder: Path) -> Mount | None:
    try:
        lines = _MOUNTS.read_bytes().decode("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    above = {str(each) for each in (folder, *folder.parents)}
    found: Mount | None = None
    for line in lines:
        before, _, after = line.partition(" - ")
        match before.split(" "), after.split(" "):
            case [_, _, _, _, escaped, *_], [kind, source, *_]:
                point = _unescaped(escaped)
            case _:
                continue
        if point in above and (found is None or len(point) >= len(found.point)):  # the last one hides the others
            found = Mount(point, kind, _unescaped(source))
    return found


def _unescaped(text: str) -> str:
    r"""Return the plain path from mountinfo, which escapes blanks and backslashes as octal numbers.

    >>> _unescaped(r"/mnt/my\040data")
    '/mnt/my data'
    """
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
