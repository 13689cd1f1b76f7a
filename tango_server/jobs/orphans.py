"""What a killed `petif convert` has left of its temporary files, wherever it ran."""

import contextlib
import os
import platform
import re
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from tango_server.conversion.files.temporary_names import TEMPORARY_SUFFIX, is_in_use

OURS = f"{platform.node()}-offline-"
"""How the attempts of this host are called, before the id of their process."""
_LONGEST_ATTEMPT = 3600.0
"""How old (s) a temporary file is that nobody can be at work on."""


def remove_orphans(folders: Iterable[Path]) -> None:
    """Remove what earlier calls on this host left in these folders when they were killed.

    By the lock of a temporary file, or its age: a container may have the name of its host, and other process ids.
    """
    for folder in folders:
        try:
            names = [entry.name for entry in os.scandir(folder) if entry.name.endswith(TEMPORARY_SUFFIX)]
        except OSError:  # there is nothing to clean, or nobody may
            continue
        for name in names:
            owner = re.search(re.escape(f".{OURS}") + r"(\d+)-\d+\.", name)
            with contextlib.suppress(OSError):
                if owner and _is_orphan(folder / name, int(owner[1])):
                    (folder / name).unlink()


def _is_orphan(temporary: Path, owner: int) -> bool:
    if used := is_in_use(temporary):
        return False
    if time.time() - temporary.stat().st_mtime > _LONGEST_ATTEMPT:
        return True
    return used is False and not psutil.pid_exists(owner)  # in the instant after it was made it has no lock yet
