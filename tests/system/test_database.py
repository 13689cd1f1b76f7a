"""A registered server: what a database that goes away costs, and what `petif register` puts into it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import tango
from click.testing import CliRunner, Result

from tango_server.commands.register import register
from tango_server.recipe import Recipe
from tests.system.conftest import FAST
from tests.system.tango_database import RegisteredServer, TangoDatabase
from tests.system.test_server import big_frames
from tests.system.waiting import reports, submit, until

DEVICE = "petif/converter/register"
INSTANCE = "register"
SERVER = f"PETifConverter/{INSTANCE}"


@pytest.fixture
def own_database(tmp_path: Path, long_lived: set[int]) -> Iterator[TangoDatabase]:
    """A Tango database that a test may kill and start again."""
    folder = tmp_path / "database"
    folder.mkdir()
    with TangoDatabase(folder) as database:
        yield database


@pytest.fixture
def registered(own_database: TangoDatabase, root: Path) -> Iterator[RegisteredServer]:
    """A running server of `own_database`."""
    properties = dict(assignment.split("=") for assignment in FAST)
    properties.update({"read_roots": str(root), "state_dir": str(root / "state"), "numworkers": "2"})
    own_database.register("PETifConverter/away", "petif/converter/away", {k: [v] for k, v in properties.items()})
    server = RegisteredServer(own_database, "away", "petif/converter/away", root / "away.log")
    yield server.start()
    server.stop()


@pytest.fixture
def petif_register(tango_database: TangoDatabase) -> Iterator[Callable[..., Result]]:
    """Run `petif register` for DEVICE of SERVER; nothing is left of it in the database."""

    def run(*arguments: str, answer: str = "") -> Result:
        place = ["--database", tango_database.address, "--device", DEVICE, "--server", SERVER]
        return CliRunner().invoke(register, [*place, *arguments], input=answer)

    yield run
    tango_database.client.delete_device_property(DEVICE, list(properties(tango_database)))
    tango_database.client.delete_device(DEVICE)


def properties(database: TangoDatabase) -> dict[str, list[str]]:
    """Return all properties of DEVICE, as Tango tells them."""
    names = list(database.client.get_device_property_list(DEVICE, "*"))
    found = database.client.get_device_property(DEVICE, names) if names else {}
    return {name: list(lines) for name, lines in found.items()}


def devices(database: TangoDatabase) -> list[str]:
    """Return the devices of SERVER, as Tango tells them."""
    return list(database.client.get_device_name(SERVER, "PETifConverter"))


def init_is_refused(proxy: tango.DeviceProxy) -> bool:
    try:
        proxy.command_inout("Init")
    except tango.DevFailed as error:
        told = f"{error.args[0].reason}: {error.args[0].desc}"
    else:
        return False
    assert told.startswith("PETIF_NoDatabase: ")
    assert "keeps its current settings. Call Init again" in told
    return True


@pytest.mark.long
def test_work_continues_without_the_database_and_init_works_after(
    own_database: TangoDatabase, registered: RegisteredServer, root: Path, put: Callable[..., Path]
) -> None:
    proxy = tango.DeviceProxy(registered.address)
    paths = big_frames(root / "raw", 20)
    first = submit(proxy, *({"source": str(path)} for path in paths))
    until(lambda: proxy.NumProcessed >= 2, "some frames are converted")
    own_database.kill()
    assert init_is_refused(proxy)
    second = submit(proxy, {"source": str(put("qxrd_f32_64.tif"))})
    assert [report["outcome"] for report in reports(proxy, first) + reports(proxy, second)] == ["converted"] * 21
    assert init_is_refused(proxy)
    assert (proxy.state(), proxy.NumProcessed, proxy.NumWorkers) == (tango.DevState.ON, 21, 2)
    own_database.start()
    own_database.client.put_device_property(registered.device, {"numworkers": ["1"]})
    until(lambda: not init_is_refused(proxy), "Init works again")
    assert (proxy.state(), proxy.NumWorkers) == (tango.DevState.ON, 1)


@pytest.mark.long
def test_fault_outlives_a_database_outage_and_can_be_fixed_after_it(
    own_database: TangoDatabase, registered: RegisteredServer
) -> None:
    proxy = tango.DeviceProxy(registered.address)
    own_database.client.put_device_property(registered.device, {"numworkers": ["four"]})
    proxy.Init()
    own_database.kill()
    assert init_is_refused(proxy)
    assert proxy.state() == tango.DevState.FAULT
    assert "numworkers: input should be a valid integer" in proxy.status()
    own_database.start()
    own_database.client.put_device_property(registered.device, {"numworkers": ["3"]})
    until(lambda: not init_is_refused(proxy), "Init works again")
    assert (proxy.state(), proxy.NumWorkers) == (tango.DevState.ON, 3)


@pytest.mark.long
@pytest.mark.parametrize("way", ["SIGTERM", "Kill"])
def test_a_server_without_its_database_ends_in_good_order(
    way: str, own_database: TangoDatabase, registered: RegisteredServer, root: Path
) -> None:
    proxy = tango.DeviceProxy(registered.address)
    administrator = tango.DeviceProxy(f"tango://{own_database.address}/dserver/PETifConverter/away")
    with pytest.raises(tango.DevFailed, match="may not write files"):
        administrator.command_inout("AddLoggingTarget", ["petif/converter/away", f"file::{root}/log"])
    paths = big_frames(root / "raw", 10)
    answer = submit(proxy, *({"source": str(path)} for path in paths))
    until(lambda: proxy.NumProcessed >= 1, "a frame is converted")
    family = [psutil.Process(registered.pid), *psutil.Process(registered.pid).children(recursive=True)]
    own_database.kill()
    administrator.command_inout("Kill") if way == "Kill" else family[0].terminate()
    _, alive = psutil.wait_procs(family, timeout=15)
    assert not alive
    assert not list(root.rglob("*.petif-tmp"))
    registered.stop()
    own_database.start()
    again = tango.DeviceProxy(registered.start().address)
    assert [report["outcome"] for report in reports(again, answer)] == ["converted"] * 10


def serves(proxy: tango.DeviceProxy) -> bool:
    try:
        return bool(proxy.state() == tango.DevState.ON)
    except tango.DevFailed:
        return False


@pytest.mark.long
def test_server_restarted_over_tango_still_refuses_file_logging(
    own_database: TangoDatabase, registered: RegisteredServer, root: Path
) -> None:
    administrator = tango.DeviceProxy(f"tango://{own_database.address}/dserver/PETifConverter/away")
    proxy = tango.DeviceProxy(registered.address)
    administrator.command_inout("RestartServer")
    until(lambda: serves(proxy) and serves(administrator), "it serves again")

    def refuses() -> bool:
        """Whether it refuses; the restart may have only begun, and then it does not answer."""
        try:
            administrator.command_inout("AddLoggingTarget", ["petif/converter/away", f"file::{root}/log"])
        except tango.DevFailed as error:
            return "may not write files" in str(error)
        raise AssertionError("file logging was accepted")

    until(refuses, "it refuses file logging")
    assert not (root / "log").exists()


def test_server_that_cannot_serve_exits_with_an_error_for_systemd(own_database: TangoDatabase, root: Path) -> None:
    own_database.register("PETifConverter/lone", "petif/converter/lone", {"read_roots": [str(root)]})
    server = RegisteredServer(own_database, "lone", "petif/converter/lone", root / "lone.log")
    taken = own_database.address.rpartition(":")[2]
    assert server.launch("-port", taken).wait(timeout=20) == 1
    assert "cannot start" in server.log_text()
    own_database.kill()
    assert server.launch().wait(timeout=20) not in {0, 1}
    assert server.log_text().strip() == "Can't build connection to TANGO database server, exiting", "deploy.md cites it"


def test_what_register_writes_is_what_the_device_takes(
    petif_register: Callable[..., Result], tango_database: TangoDatabase, root: Path
) -> None:
    share = root / "raw" / 'it\'s "x", \xe4'
    share.mkdir()
    config = root / "petif.toml"
    lines = [
        f"read_roots = {json.dumps([str(root), str(share)], ensure_ascii=False)}",
        f"state_dir = {json.dumps(str(root / 'state'))}",
        f"path_maps = {{ 'Y:\\' = {json.dumps(str(share), ensure_ascii=False)} }}",
        'recipe = { preset = "xdi-unsigned", rotation = 90, output = { template = "{sample}_{seq_num:03d}" } }',
        "numworkers = 3",
        "watch_recursive = false",
        "placeholder_shape = [64, 128]",
    ]
    config.write_text("\n".join(lines), encoding="utf-8")
    result = petif_register("--config", str(config), "--set", "numworkers=2", "--set", "timeout=5")
    assert result.exit_code == 0, result.output
    assert f"TANGO_HOST={tango_database.address} PETifConverter {INSTANCE}" in result.output
    written = properties(tango_database)
    assert set(written) == {*(line.partition(" ")[0] for line in lines), "timeout"}
    assert (written["read_roots"], written["numworkers"]) == ([str(root), str(share)], ["2"])
    server = RegisteredServer(tango_database, INSTANCE, DEVICE, root / "server.log")
    try:
        proxy = tango.DeviceProxy(server.start().address)
        assert proxy.state() == tango.DevState.ON, proxy.status()
        assert (proxy.NumWorkers, proxy.ConfRotation, proxy.ConfType) == (2, 90, "uint32")
        output = {"template": "{sample}_{seq_num:03d}"}
        assert Recipe.model_validate_json(proxy.Recipe) == Recipe.preset("xdi-unsigned", rotation=90, output=output)
        result = petif_register("--set", "numworkers=1", "--force")
        assert "Init" in result.output
        proxy.Init()
        assert proxy.NumWorkers == 1
    finally:
        server.stop()


def test_nothing_is_written_before_all_of_it_makes_sense(
    petif_register: Callable[..., Result], tango_database: TangoDatabase, root: Path
) -> None:
    least = ["--set", f"read_roots={root}", "--set", f"state_dir={root / 'state'}"]
    for wrong, words in {
        "timeout=soon": "got 'soon'",
        "setle_time=1": "setle_time",
        "settle_time=99": "must be longer than the settle time",
        "watch=raw": "raw is a relative path",
        "log_files": "'log_files' is not NAME=VALUE",
        "watch=/data/\u03b2": "Latin-1",
    }.items():
        result = petif_register(*least, "--set", wrong)
        assert result.exit_code != 0
        assert words in result.output
    assert petif_register("--set", "timeout=20").exit_code == 1, "a new device needs read_roots"
    result = petif_register(*least, "--dry-run")
    assert (result.exit_code, f"+ read_roots: {root}" in result.output) == (0, True)
    assert (devices(tango_database), properties(tango_database)) == ([], {})


def test_existing_device_is_changed_only_on_request(
    petif_register: Callable[..., Result], tango_database: TangoDatabase, root: Path
) -> None:
    least = ["--set", f"read_roots={root}", "--set", f"state_dir={root / 'state'}"]
    assert petif_register(*least, "--set", "attempts=4", "--set", "watch=/a", "--set", "watch=/b").exit_code == 0
    assert devices(tango_database) == [DEVICE]
    before = properties(tango_database)
    assert before["watch"] == ["/a", "/b"]
    change = ["--set", "attempts=5", "--set", "watch=/a"]
    result = petif_register(*change, answer="n\n")
    assert result.exit_code == 1
    for line in ("- attempts: 4", "+ attempts: 5", "- watch: /b", "unchanged: read_roots, state_dir"):
        assert line in result.output
    assert properties(tango_database) == before
    assert petif_register(*change, answer="y\n").exit_code == 0
    assert properties(tango_database) == {**before, "attempts": ["5"], "watch": ["/a"]}
    assert "Nothing to change" in petif_register(*change).output
    config = root / "empty.toml"
    config.write_text("watch = []\n")
    assert petif_register("--config", str(config), "--force").exit_code == 0
    assert "watch" not in properties(tango_database)


def test_device_of_another_class_and_missing_database_are_reported(
    petif_register: Callable[..., Result], tango_database: TangoDatabase, root: Path
) -> None:
    settings = ["--set", f"read_roots={root}"]
    result = petif_register(*settings, "--device", "dserver/databaseds/2")
    assert (result.exit_code, "a device of class" in result.output) == (1, True)
    result = petif_register(*settings, "--database", "127.0.0.1:1")
    assert (result.exit_code, "127.0.0.1:1" in result.output) == (1, True)
    for option, wrong in (("--database", "nowhere"), ("--server", "Other/1"), ("--device", "a/b")):
        result = petif_register(*settings, option, wrong)
        assert (result.exit_code > 0, wrong in result.output) == (True, True)
