"""Resource limits of this host: cores, open files; and messages for when they are too low."""

import errno
import logging
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_log = logging.getLogger(__name__)

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_FILES_OF_A_SERVER = 128
"""Files and connections that a server keeps open besides its workers: Tango, the ledger, clients, frames."""
_FILES_OF_A_WORKER = 8
_COMFORTABLE = 4096
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - only named in a message


def usable_cores() -> int:
    """Return how many cores this process may use, from its CPU affinity and its cgroup limits.

    Linux: cpu.max of cgroup v2, cpu.cfs_quota_us and cpu.cfs_period_us of v1.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, min([cores, *(math.ceil(limit) for limit in _cpu_limits())]))


def fitting_workers(wanted: int) -> int:
    """Return how many workers, at most `wanted`, fit into the limit of open files; raise the limit if necessary."""
    try:
        import resource  # noqa: PLC0415 - Windows has neither the module nor the limit
    except ImportError:
        return wanted
    needed = _FILES_OF_A_SERVER + wanted * _FILES_OF_A_WORKER
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (math.inf if limit == resource.RLIM_INFINITY else float(limit) for limit in limits)
    if soft < max(needed, _COMFORTABLE):
        raised = min(hard, max(needed, _COMFORTABLE))
        with suppress(OSError, ValueError):  # a sandbox may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (int(raised), limits[1]))
            soft = raised
    if soft >= needed:
        return wanted
    fitting = max(1, min(wanted, int(soft - _FILES_OF_A_SERVER) // _FILES_OF_A_WORKER))
    _log.warning(
        "Cannot run %d workers: they need %d open files, and the limit is %d. Running %d; raise the limit (ulimit -n).",
        wanted, needed, int(soft), fitting,
    )  # fmt: skip
    return fitting


def host_problem(error: BaseException) -> str:
    """Return which limit of this host caused an error and how to raise it; empty if no limit is known to be the cause.

    >>> host_problem(RuntimeError("can't start new thread"))
    'The limit of processes and threads was reached. Raise it (ulimit -u, pids.max of a container).'
    """
    text = str(error)
    number = getattr(error, "errno", None)
    if "start new thread" in text or number == errno.EAGAIN:
        return "The limit of processes and threads was reached. Raise it (ulimit -u, pids.max of a container)."
    if number in {errno.EMFILE, errno.ENFILE} or "Too many open files" in text:
        return "The limit of open files was reached. Raise it (ulimit -n)."
    if _SHARED_MEMORY in text:
        return f"Cannot use {_SHARED_MEMORY}. Mount it, or give the container some (--shm-size)."
    if "/proc/" in text:
        return "Cannot read /proc. Mount it."
    return ""


def _cpu_limits() -> Iterator[float]:
    """Yield the CPU limits (in cores) of the cgroups of this process."""
    for line in _read(_OWN_CGROUP).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            base, names = _CGROUPS, ["cpu.max"]
        elif "cpu" in controllers.split(","):
            base, names = _CGROUPS / controllers, ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
            base = base if base.is_dir() else _CGROUPS / "cpu"
        else:
            continue
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            words = " ".join(_read(folder / name) for name in names).split()
            with suppress(ValueError):
                quota, period = map(float, words[:2])  # "max" is not a number: no limit
                if quota > 0 and period > 0:
                    yield quota / period
            if folder == base:
                break


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
