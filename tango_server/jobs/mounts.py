"""Whether the roots lie on the file systems that they lay on when the server started.

A mount that goes away leaves an empty folder with its name: what is written there is hidden when it comes back.
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
    """One line of Linux' mountinfo (proc(5)): where a file system is mounted, its type, and what it is made from."""

    point: str
    kind: str
    source: str


class Place(NamedTuple):
    """Where a folder lies: the device that the system tells, and its mount, where the system tells that."""

    device: int
    mount: Mount | None = None

    def __str__(self) -> str:
        if self.mount is None:
            return f"device {self.device}"
        return f"{self.mount.source} ({self.mount.kind}) on {self.mount.point}"


PlaceOf = Callable[[Path, Place | None], Place | None]


class Mounts:
    """The file systems of folders, as they were when each was seen first. Any thread may call.

    A network file system may have another device number each time that it is mounted: it is the same if it is mounted
    from the same source, at the same place. One that is mounted only after the server has started is taken as it comes.
    """

    def __init__(self, roots: Iterable[Path], place_of: "PlaceOf | None" = None) -> None:
        self._place_of = place_of or place
        self._lock = threading.Lock()
        self._noted: dict[Path, Place] = {}
        self._troubles: dict[Path, str] = {}
        self.trouble_of(*roots)

    @property
    def last_trouble(self) -> str:
        """What was wrong at the last look at each root; asks no file system. Empty: nothing."""
        with self._lock:
            return next(iter(self._troubles.values()), "")

    def look(self) -> None:
        """Look at all of them; this may take as long as a file server takes."""
        with self._lock:
            roots = tuple(self._noted)
        self.trouble_of(*roots)

    def trouble_of(self, *roots: Path) -> str:
        """Look at some roots; return what is wrong with the first one that lies elsewhere now, empty if none does."""
        first = ""
        for root in dict.fromkeys(roots):
            with self._lock:
                noted = self._noted.get(root)
            trouble = self._compared(root, self._place_of(root, noted))
            first = first or trouble
        return first

    def _compared(self, root: Path, now: Place | None) -> str:
        with self._lock:
            noted = self._noted.get(root)
            if noted is None:
                if now is not None:
                    self._noted[root] = now
                return ""
            same = now is not None and (now.device == noted.device or _is_same(now.mount, noted.mount))
            before = self._troubles.pop(root, "")
            if same and now is not None:
                self._noted[root] = now
                if before:
                    _log.warning("%s: its file system is back", root)
                return ""
            found = "none" if now is None else str(now)
            trouble = self._troubles[root] = (
                f"{root}: its file system is gone (found {found}; expected {noted}). Frames wait until it is mounted "
                "again. If it is meant to lie elsewhere now, call Init."
            )
        if not before:
            _log.error("%s", trouble)
        return trouble


def place(folder: Path, noted: Place | None = None) -> Place | None:
    """Return where a folder lies, or where it would: the nearest one above it that is there. None: nobody can tell.

    On the device of `noted` it is that: one look at the file system, as it is made for each frame.
    """
    for existing in (folder, *folder.parents):
        try:
            device = os.stat(f"{existing}/.").st_dev  # noqa: PTH116 - the dot has what is mounted on use be mounted
        except FileNotFoundError:
            continue
        except OSError:
            return None
        return noted if noted is not None and noted.device == device else Place(device, _mount_of(existing))
    return None


def _is_same(now: Mount | None, noted: Mount | None) -> bool:
    """Whether a mount is the noted one, or one that has come on the way to the folder since."""
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
        if point in above and (found is None or len(point) >= len(found.point)):  # the last one lies over the others
            found = Mount(point, kind, _unescaped(source))
    return found


def _unescaped(text: str) -> str:
    r"""Return a path of mountinfo as it is: blanks and backslashes stand there as octal numbers.

    >>> _unescaped(r"/mnt/my\040data")
    '/mnt/my data'
    """
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
