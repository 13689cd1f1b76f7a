"""How executors are chosen."""

import subprocess
import sys

import pytest

from tango_server.jobs.executors.factory import make_executor


def test_dask_without_a_scheduler_is_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"Set dask_scheduler, for example to tcp://host:8786"):
        make_executor("dask", workers=1, time_limit=1.0)


def test_cluster_packages_are_loaded_for_dask_only() -> None:
    script = (
        "import sys\n"
        "from tango_server.jobs.executors.factory import make_executor\n"
        "make_executor('process', workers=1, time_limit=1.0).close(1.0)\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(answer.stdout.split())
    assert "tango_server" in loaded
    assert not loaded & {"distributed", "dask", "tornado"}
