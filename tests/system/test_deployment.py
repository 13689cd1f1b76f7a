"""The commands of the deployment files, run on this machine in the order in which they would be."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import tango

from tango_server.addresses import free_port
from tests.deployment_files import COMPOSE_FILES, DEPLOYMENT, compose, example_environment, on_this_machine
from tests.system.tango_database import TangoDatabase
from tests.system.waiting import until

PROGRAMS = Path(sys.executable).parent
DEVICE = "p02/petif/1"

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not list(PROGRAMS.glob("PETifConverter*")), reason="petif-bluesky is not installed in this environment"
    ),
]


@pytest.fixture
def database(tango_database: TangoDatabase) -> Iterator[TangoDatabase]:
    """The Tango database; DEVICE is in it neither before nor after."""
    yield tango_database
    client = tango_database.client
    client.delete_device_property(DEVICE, list(client.get_device_property_list(DEVICE, "*")))
    client.delete_server("PETifConverter/p02")


@pytest.fixture
def configuration(root: Path) -> Path:
    path = root / "petif.toml"
    path.write_text(f"read_roots = ['{root}']\nstate_dir = '{root / 'state'}'\nnumworkers = 1\n")
    return path


@pytest.fixture
def start(root: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a server; it is told to end as docker and systemd do it."""
    running: list[subprocess.Popen[bytes]] = []

    def started(command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with (root / "server.log").open("ab") as log:
            running.append(
                subprocess.Popen(
                    command, cwd=root, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
                )
            )
        return running[-1]

    yield started
    for process in running:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run(command: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_compose_runs_the_server(
    name: str,
    configuration: Path,
    start: Callable[..., subprocess.Popen[bytes]],
    request: pytest.FixtureRequest,
) -> None:
    services = compose(name, example_environment())["services"]
    server, port = services["converter"], str(free_port("127.0.0.1"))
    environment = {**os.environ, **server["environment"]}
    replaced = {"/etc/petif/petif.toml": str(configuration), "45450": port}
    if "register" in services:
        address = request.getfixturevalue("database").address
        environment["TANGO_HOST"] = address
        device = f"tango://{address}/{DEVICE}"
        for _ in range(2):  # at each `docker compose up`
            registered = run(on_this_machine(services["register"]["command"], PROGRAMS, replaced), environment)
            assert registered.returncode == 0, registered.stdout + registered.stderr
    else:
        device = environment["PETIF_DEVICE"] = server["environment"]["PETIF_DEVICE"].replace("45450", port)
    check = on_this_machine(server["healthcheck"]["test"][1:], PROGRAMS, {})
    assert run(check, environment).returncode == 3
    process = start(on_this_machine(server["command"], PROGRAMS, replaced), environment)

    def is_healthy() -> bool:
        assert process.poll() is None, f"the server ended with {process.returncode}"
        return run(check, environment).returncode == 0

    until(is_healthy, "the server is healthy")
    assert tango.DeviceProxy(device).NumWorkers == 1


def test_dsconfig_writes_its_file_into_the_database(database: TangoDatabase, tmp_path: Path) -> None:
    path = DEPLOYMENT / "dsconfig.json"
    wanted = json.loads(path.read_text())["servers"]["PETifConverter"]["p02"]["PETifConverter"][DEVICE]["properties"]
    environment = {**os.environ, "TANGO_HOST": database.address, "TMPDIR": str(tmp_path)}  # it leaves a file there
    command = [str(PROGRAMS / "json2tango"), "--write", str(path)]
    written, unchanged = 2, 0
    for exit_code in (written, unchanged):
        ended = run(command, environment)
        assert ended.returncode == exit_code, ended.stdout + ended.stderr
    assert list(database.client.get_device_name("PETifConverter/p02", "PETifConverter")) == [DEVICE]
    found = database.client.get_device_property(DEVICE, list(wanted))
    assert {name: list(lines) for name, lines in found.items()} == wanted
