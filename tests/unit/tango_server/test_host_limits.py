"""Cores and open files: what this process may use, not what the machine has."""

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tango_server import host_limits
from tango_server.host_limits import fitting_workers, host_problem, usable_cores

ASK = "from tango_server.host_limits import fitting_workers as f; import resource as r"


def control_groups(folder: Path, own: str, **files: str) -> None:
    (folder / "own").write_text(own)
    for name, text in files.items():
        path = folder / "sys" / name.replace("__", "/").replace("_max", ".max").replace("cfs_", "cpu.cfs_")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/\n", {}, 64),
        ("0::/\n", {"cpu_max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu_max": "250000 100000\n"}, 3),
        ("0::/a/b\n", {"a__cpu_max": "150000 100000\n", "a__b__cpu_max": "max 100000\n"}, 2),
        ("0::/a\n", {"a__cpu_max": "10000 100000\n"}, 1),
        ("4:memory:/x\n3:cpu,x:/a\n", {"cpu,x__a__cfs_quota_us": "200000", "cpu,x__a__cfs_period_us": "100000"}, 2),
        ("3:cpu:/\n", {"cpu__cfs_quota_us": "-1", "cpu__cfs_period_us": "100000"}, 64),
        ("what is this\n", {"cpu_max": "nonsense\n"}, 64),
    ],
)  # fmt: skip
def test_the_limits_of_control_groups_count(
    own: str, files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control_groups(tmp_path, own, **files)
    monkeypatch.setattr(host_limits, "_CGROUPS", tmp_path / "sys")
    monkeypatch.setattr(host_limits, "_OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)), raising=False)
    assert usable_cores() == cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="there is no affinity here")
def test_a_process_that_is_bound_to_a_core_has_one() -> None:
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from tango_server.settings import Settings; print(Settings(read_roots=['/'], state_dir='/state').numworkers)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "1"


@pytest.mark.skipif(os.name == "nt", reason="there is no such limit")
@pytest.mark.parametrize(("soft", "hard", "workers"), [(64, 8192, 200), (64, 192, 8), (64, 150, 2), (64, 64, 1)])
def test_open_file_limit_is_raised_or_workers_are_reduced(soft: int, hard: int, workers: int) -> None:
    program = f"{ASK}; r.setrlimit(r.RLIMIT_NOFILE, ({soft}, {hard})); print(f(200), r.getrlimit(r.RLIMIT_NOFILE)[0])"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.split() == [str(workers), str(min(hard, 4096))]
    assert (all(each in told.stderr for each in ("200 workers", "1728", "ulimit -n"))) == (workers < 200)


def test_a_limit_that_is_high_enough_is_left(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert fitting_workers(1) == 1
    assert not caplog.records


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "ulimit -u"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (OSError(errno.ENOENT, "No such file or directory", "/dev/shm/x"), "/dev/shm"),
        (OSError(errno.ENOENT, "No such file or directory", "/proc/stat"), "/proc"),
    ],
)
def test_what_a_place_lacks_is_named(error: Exception, words: str) -> None:
    assert words in host_problem(error)
    assert not host_problem(ValueError("something else"))
