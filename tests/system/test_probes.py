"""The probe process: files whose reader crashes or hangs cost nobody else anything."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import psutil
import pytest

from tango_server.conversion.file_state import FileState
from tango_server.conversion.files.roots import ANYWHERE
from tango_server.jobs.job import Job
from tango_server.jobs.probes import Finding, Probe, Prober
from tango_server.jobs.state_machine.events import AttemptFailed, Observed
from tango_server.messages import FrameRequest
from tango_server.recipe import Recipe
from tests.system.waiting import workers_of

PATIENCE = 60.0


def check(probe: Probe) -> Finding:
    """Do what the name of the file says; each check leaves a line with its process in a diary beside it."""
    name = probe.job.source.stem
    with probe.job.source.with_name("diary").open("a") as diary:
        diary.write(f"{name} {os.getpid()}\n")
    if name.startswith("crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if name.startswith("hang"):
        time.sleep(PATIENCE)
    return Observed(probe.job.job_id, FileState("complete", size=os.getpid()))


def probe(folder: Path, name: str) -> Probe:
    source = folder / f"{name}.h5"
    request = FrameRequest(source=str(source), recipe=Recipe.preset("xdi"))
    return Probe(Job(name, request, source, folder / f"{name}.tif"), ANYWHERE)


class Asked:
    """A probe process, and what it has found."""

    def __init__(self, folder: Path, time_limit: float) -> None:
        self.folder = folder
        self.prober = Prober(check, time_limit)
        self._found: SimpleQueue[Finding] = SimpleQueue()

    def ask(self, *names: str) -> dict[str, Finding]:
        """Check files, all at once; return what was found of each."""
        for name in names:
            self.prober.start(probe(self.folder, name), self._found.put)
        findings = [self._found.get(timeout=PATIENCE) for _ in names]
        return {getattr(finding, "job_id", ""): finding for finding in findings}

    def tries(self, name: str) -> list[str]:
        """Return the processes that have checked a file."""
        lines = [line.split() for line in (self.folder / "diary").read_text().splitlines()]
        return [process for each, process in lines if each == name]


@pytest.fixture
def asked(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Asked]:
    asked = Asked(tmp_path, getattr(request, "param", 30.0))
    yield asked
    asked.prober.close()


def test_a_file_that_kills_its_reader_fails_by_name_after_two_tries(asked: Asked) -> None:
    found = asked.ask("a", "crash", "b", "c")
    assert {name: type(finding) for name, finding in found.items()} == {
        "a": Observed, "b": Observed, "c": Observed, "crash": AttemptFailed
    }  # fmt: skip
    failed = found["crash"]
    assert isinstance(failed, AttemptFailed)
    assert failed.kind == "final"
    assert str(asked.folder / "crash.h5") in failed.reason
    assert "its reader crashed" in failed.reason
    assert len(set(asked.tries("crash"))) == 2
    assert isinstance(asked.ask("d")["d"], Observed)


@pytest.mark.long
@pytest.mark.parametrize("asked", [6.0], indirect=True)
def test_a_file_that_hangs_its_reader_fails_by_name_and_its_process_ends(asked: Asked) -> None:
    found = asked.ask("hang", "a")
    failed = found["hang"]
    assert isinstance(failed, AttemptFailed)
    assert "its reader took longer than 6 s" in failed.reason
    assert isinstance(found["a"], Observed)
    processes = asked.tries("hang")
    assert len(set(processes)) == 2
    assert not any(psutil.pid_exists(int(process)) for process in processes)


def test_the_process_starts_with_the_first_file_and_is_kept(asked: Asked) -> None:
    assert not workers_of(os.getpid())
    first, second = asked.ask("a")["a"], asked.ask("b")["b"]
    assert isinstance(first, Observed)
    assert isinstance(second, Observed)
    assert first.state == second.state, "the same process"
    (child,) = workers_of(os.getpid())
    asked.prober.close()
    assert not child.is_running()


@pytest.mark.long
def test_a_probe_process_ends_with_a_killed_server(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom tests.system.test_probes import Asked\n"
        "if __name__ == '__main__':\n"
        "    Asked(Path(sys.argv[1]), 30.0).ask('a')\n    print(flush=True)\n    time.sleep(60)\n"
    )
    program = tmp_path / "server.py"
    program.write_text(script)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, program, tmp_path], stdout=subprocess.PIPE, env=environment) as server:
        assert server.stdout is not None
        server.stdout.readline()
        probes = workers_of(server.pid)
        assert len(probes) == 1
        server.kill()
    _, alive = psutil.wait_procs(probes, timeout=10)
    assert not alive
