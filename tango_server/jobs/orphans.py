"""Temporary files left behind by a killed `petif convert`."""

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
"""Prefix of the job ids of this host, followed by the process id."""
_LONGEST_ATTEMPT = 3600.0
"""Age (s) from which on a temporary file cannot be in use."""


def remove_orphans(folders: Iterable[Path]) -> None:
    """Remove temporary files in these folders that killed calls on this host left behind.

    Decided by the lock or the age of the file: a container may share the host name but not the process ids.
    """
    for folder in folders:
        try:
            names = [entry.name for entry in os.scandir(folder) if entry.name.endswith(TEMPORARY_SUFFIX)]
        except OSError:  # nothing to clean, or no permission
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
    return used is False and not psutil.pid_exists(owner)  # a file that was just created has no lock yet
