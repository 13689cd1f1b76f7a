"""`petif add`, `status`, `reports`, `retry` and `statistics` against a real server, as a person types them."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import pytest
import tango
import tifffile
from click.testing import CliRunner, Result

from tango_server.cli import petif
from tango_server.client.client import Client, LinkDownError
from tango_server.client.local_server import LocalServer
from tango_server.client.submission import follow
from tango_server.recipe import Recipe
from tests.system.conftest import settings
from tests.system.waiting import all_done, until

Put = Callable[..., Path]
Start = Callable[..., LocalServer]
Petif = Callable[..., Result]
NOWHERE = "tango://127.0.0.1:9/petif/converter/1#dbase=no"


@pytest.fixture
def run(server: LocalServer) -> Petif:
    """Run a subcommand with the server's address in the environment."""

    def petif_command(*words: str | Path, **environment: str) -> Result:
        return CliRunner().invoke(
            petif, [str(word) for word in words], env={"PETIF_DEVICE": server.address, "COLUMNS": "200", **environment}
        )

    return petif_command


def copies(put: Put, count: int) -> list[Path]:
    return [put("qxrd_f32_64.tif", f"frame-{number:05d}.tif") for number in range(count)]


def test_a_folder_is_added_and_waited_for_and_its_frames_are_numpys(run: Petif, root: Path, put: Put) -> None:
    sources = copies(put, 3)
    result = run("add", root / "raw", "--rotation", "90", "--flip", "1", "--wait", "--run", "by-hand")
    assert result.exit_code == 0, result.output
    assert result.stdout == "3 frames converted, 0 skipped, 0 placeholders, 0 failed, 0 refused\n"
    for source in sources:
        expected = np.flip(np.rot90(tifffile.imread(source)), 1).astype("int32")
        np.testing.assert_array_equal(tifffile.imread(root / "processed" / source.name), expected)
    statistics = json.loads(run("statistics", "by-hand", "--json").stdout)
    assert (statistics["converted"], statistics["pending"]) == (3, 0)
    told = run("statistics", "by-hand", "--wait").stdout
    assert "run by-hand" in told
    assert "3 frames" in told


def test_frames_of_a_file_are_added_and_waited_for(run: Petif, server: LocalServer, root: Path, data: Path) -> None:
    source = shutil.copy(data / "made" / "06_int16_sum.h5", root / "raw" / "scan.h5")
    result = run("add", source, "--wait", "--pixel-type", "source", "--run", "by-hand")
    assert result.stdout == "10 frames converted, 0 skipped, 0 placeholders, 0 failed, 0 refused\n", result.output
    with h5py.File(source) as file:
        stack = file["/entry/data/data"][()]
    for index, image in enumerate(stack):
        np.testing.assert_array_equal(tifffile.imread(root / "processed" / f"scan_{index:05d}.tif"), image)
    result = run("add", f"{source}::/entry/data/data", "--frames", "1:8:3", "--wait", "--output-dir", root / "other")
    assert result.stdout.startswith("3 frames converted"), result.output
    assert {path.name for path in (root / "other").glob("*.tif")} == {f"scan_0000{index}.tif" for index in (1, 4, 7)}
    assert run("add", source, "--frames", "2:").exit_code == 2
    libraries = {Path(each.path).name for each in psutil.Process(server.pid).memory_maps()}
    assert not any("hdf5" in name for name in libraries), "nothing of HDF5 is opened in the server's own process"
    statistics = json.loads(run("statistics", "by-hand", "--json").stdout)
    assert (statistics["submitted"], statistics["converted"], statistics["skipped"]) == (11, 10, 1)


def test_server_recipe_is_the_default_and_add_does_not_wait(run: Petif, root: Path, put: Put) -> None:
    source = put("qxrd_f32_64.tif")
    result = run("add", source)
    assert result.exit_code == 0
    assert result.stdout == (
        "1 frame accepted, 0 refused: rotation 0, flip none, int32 (the server's recipe). "
        "To follow them: petif status --follow\n"
    )
    until((root / "processed" / source.name).exists, "the frame is converted")
    np.testing.assert_array_equal(
        tifffile.imread(root / "processed" / source.name), tifffile.imread(source).astype("int32")
    )


def test_options_change_the_servers_recipe_and_a_preset_replaces_it(
    run: Petif, root: Path, put: Put, proxy: tango.DeviceProxy
) -> None:
    source = put("qxrd_f32_64.tif")
    raw = tifffile.imread(source)
    proxy.SetRecipe(Recipe.preset("xdi-unsigned", rotation=90, invalid_value=7).model_dump_json())

    def converted(*options: str, folder: str = "processed") -> Any:
        result = run("add", source, "--wait", *options)
        assert result.exit_code == 0, result.output
        return tifffile.imread(root / folder / source.name)

    turned = np.rot90(raw)
    np.testing.assert_array_equal(converted("--force"), turned.clip(0).astype("uint32"))
    np.testing.assert_array_equal(converted("--pixel-type", "int32"), turned.astype("int32"))
    elsewhere = converted("--output-dir", str(root / "elsewhere"), folder="elsewhere")
    np.testing.assert_array_equal(elsewhere, turned.clip(0).astype("uint32"))
    np.testing.assert_array_equal(converted("--preset", "xdi"), raw.astype("int32"))
    recipe = json.loads(run("status", "--json").stdout)["Recipe"]
    assert (recipe["rotation"], recipe["invalid_value"]) == (90, 7)


def test_a_folder_of_another_machine_is_left_to_the_server(run: Petif, put: Put) -> None:
    result = run("add", put("qxrd_f32_64.tif"), "--output-dir", r"Z:\processed")
    assert result.exit_code == 1
    assert r"Z:\processed" in result.stderr
    assert str(Path.cwd()) not in result.stderr


def test_a_relative_path_begins_in_the_working_folder(
    run: Petif, root: Path, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("qxrd_f32_64.tif", "here.tif")
    monkeypatch.chdir(root / "raw")
    jobs = json.loads(run("add", "here.tif", "--json").stdout)["jobs"]
    assert [job["source"] for job in jobs] == [str(root / "raw" / "here.tif")]
    assert json.loads(run("add", ".", "--wait", "--json").stdout.splitlines()[0])["outcome"] == "converted"


def test_what_is_not_there_is_refused_at_once_and_the_rest_is_taken(run: Petif, root: Path, put: Put) -> None:
    good = put("qxrd_f32_64.tif")
    (root / "raw" / "empty").mkdir()
    result = run("add", good, root / "raw" / "nothing.tif", root / "raw" / "empty", "/etc/passwd")
    assert result.exit_code == 1
    assert result.stdout.startswith("1 frame accepted, 3 refused")
    for words in ("nothing.tif", "empty: no frames found", "/etc/passwd"):
        assert words in result.stderr


def test_broken_frame_is_reported_found_fixed_and_retried(
    run: Petif, root: Path, put: Put, proxy: tango.DeviceProxy
) -> None:
    broken = put("not_a_tiff.tif", "broken.tif")
    good = put("qxrd_f32_64.tif", "good.tif")
    result = run("add", broken, good, "--wait")
    assert result.exit_code == 1
    assert "1 frame converted, 0 skipped, 0 placeholders, 1 failed" in result.stdout
    assert "broken.tif" in result.stderr
    until(lambda: proxy.state() == tango.DevState.ALARM, "the alarm is on")
    alarmed = run("status")
    assert alarmed.exit_code == 1
    assert "ALARM" in alarmed.stdout
    assert "broken.tif" in alarmed.stdout
    failed = run("reports", "--outcome", "failed")
    assert "broken.tif" in failed.stdout
    assert "good.tif" not in failed.stdout
    assert "1 report, no frames pending" in failed.stdout
    put("qxrd_f32_64.tif", "broken.tif")
    assert "1 frame" in run("retry", "--acknowledge").stdout
    all_done(proxy)
    until(lambda: proxy.state() == tango.DevState.ON, "the alarm is over")
    healthy = run("status")
    assert healthy.exit_code == 0
    assert "none left to retry" in healthy.stdout
    assert "last error" not in healthy.stdout
    assert json.loads(run("retry", "--json").stdout) == {"retried": 0}
    outcomes = {
        Path(report["source"]).name: report["outcome"]
        for report in json.loads(run("reports", "--json").stdout)["reports"]
    }
    assert outcomes == {"broken.tif": "converted", "good.tif": "converted"}


def test_an_alarm_is_ended_without_trying_again(run: Petif, put: Put, proxy: tango.DeviceProxy) -> None:
    run("add", put("not_a_tiff.tif"), "--wait")
    until(lambda: proxy.state() == tango.DevState.ALARM, "the alarm is on")
    assert run("acknowledge").exit_code == 0
    until(lambda: proxy.state() == tango.DevState.ON, "the alarm is over")
    assert list(proxy.FailedFiles)
    assert json.loads(run("acknowledge", "--json").stdout) == {"acknowledged": True}


def test_reports_of_jobs_of_a_run_and_the_latest(run: Petif, root: Path, put: Put, proxy: tango.DeviceProxy) -> None:
    copies(put, 25)
    answer = json.loads(run("add", root / "raw", "--run", "r", "--json").stdout)
    all_done(proxy)
    ids = [job["job_id"] for job in answer["jobs"]]
    assert len(ids) == 25
    found = json.loads(run("reports", ids[3], ids[1], "--json").stdout)["reports"]
    assert [report["job_id"] for report in found] == [ids[3], ids[1]]
    assert len(json.loads(run("reports", "--run", "r", "--json").stdout)["reports"]) == 25
    assert len(json.loads(run("reports", "--json").stdout)["reports"]) == 20
    assert "25 reports" in run("reports", "--limit", "100").stdout


def test_status_as_json_holds_every_number_and_the_recipe(run: Petif, server: LocalServer) -> None:
    told = json.loads(run("status", "--json").stdout)
    assert (told["address"], told["State"], told["QueueLength"]) == (server.address, "ON", 0)
    assert told["Recipe"]["pixel_type"] == "int32"
    assert {"ON", "int32"} <= set(run("status").stdout.replace(",", " ").split())


def test_idle_server_has_no_times(start_server: Start) -> None:
    address = start_server().address
    shown = CliRunner().invoke(petif, ["status", "--device", address]).stdout
    assert "0.000 s" not in shown
    for name in ("latency", "conversion", "last output"):
        (line,) = (line for line in shown.splitlines() if line.startswith(f"│ {name} "))
        assert line.removesuffix("│").split()[-1] == "–"
    fields = json.loads(CliRunner().invoke(petif, ["status", "--json", "--device", address]).stdout)
    assert fields["LatencyMedian"] == 0.0


@pytest.mark.long
def test_wait_names_a_damaged_file_and_the_reason(start_server: Start, root: Path, put: Put) -> None:
    address = start_server(*settings("run_timeout=4")).address
    put("truncated_tail.tif", "damaged.tif")
    command = [sys.executable, "-m", "tango_server", "add", str(root / "raw"), "--run", "r", "--wait"]
    finished = subprocess.run([*command, "--device", address], capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 1
    first = finished.stderr.splitlines()[0]
    assert first.startswith("waiting up to 2 s more for ")
    assert str(root / "raw" / "damaged.tif") in first
    assert "the value of tag 269" in first
    assert "1 failed" in finished.stdout


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="pexpect's terminal is POSIX's")
def test_tables_fit_the_terminal_and_break_no_path(server: LocalServer, run: Petif, root: Path, put: Put) -> None:
    import pexpect

    name = "alumina-heating-ramp-from-300-to-1200-K-in-steps-of-25-K-1"
    source = put("qxrd_f32_64.tif", f"{name}-00001.tif")
    assert run("add", source, "--wait", "--run", name).exit_code == 0

    def in_terminal(*words: str) -> list[str]:
        command = ["-m", "tango_server", *words, "--device", server.address]
        terminal = pexpect.spawn(sys.executable, command, dimensions=(24, 80), timeout=30, encoding="utf-8")
        terminal.expect(pexpect.EOF)
        terminal.close()
        return str(terminal.before).replace("\r", "").splitlines()

    lines = in_terminal("reports", "--run", name)
    assert len([line for line in lines if "-00001.tif" in line and "…" in line]) == 1
    assert max(map(len, lines[3:])) <= 80
    assert any("25-K-1-00001.tif" in line for line in in_terminal("status"))
    assert any(name in line for line in in_terminal("statistics", name))
    assert str(source) in run("reports", "--run", name).stdout
    assert json.loads(run("reports", "--run", name, "--json").stdout)["reports"][0]["source"] == str(source)


@pytest.mark.parametrize(
    "words",
    [["status"], ["reports"], ["retry"], ["acknowledge"], ["statistics", "run"], ["add", "/data/raw"]],
    ids=lambda words: words[0],
)
def test_a_server_that_is_not_there_is_named_with_what_to_do(words: list[str]) -> None:
    result = CliRunner().invoke(petif, [*words, "--device", NOWHERE])
    assert result.exit_code == 3
    assert NOWHERE in result.stderr
    for remedy in ("petif serve", "--device", "PETIF_DEVICE"):
        assert remedy in result.stderr
    assert "Traceback" not in result.output


def test_an_unknown_run_or_job_and_a_wrong_call_are_errors(run: Petif) -> None:
    for words in (["statistics", "nobody"], ["reports", "--run", "nobody"], ["reports", "no-such-job"]):
        result = run(*words)
        assert result.exit_code == 2
        assert words[-1] in result.stderr
    assert run("reports", "id", "--run", "r").exit_code == 2
    for words in (["reports", ""], ["reports", "x" * 600], ["add", ""]):
        result = run(*words)
        assert result.exit_code == 2, result.output
        assert "Traceback" not in result.output


def test_full_queue_error_has_the_remedy(start_server: Start, put: Put) -> None:
    address = start_server(*settings("backlog_limit=5")).address
    tango.DeviceProxy(address).Pause()
    sources = [str(path) for path in copies(put, 6)]
    assert CliRunner().invoke(petif, ["add", *sources[:3], "--device", address]).exit_code == 0
    result = CliRunner().invoke(petif, ["add", *sources[3:], "--device", address])
    assert result.exit_code == 3
    assert "backlog_limit is " in result.stderr
    assert "--device" not in result.stderr
    assert tango.DeviceProxy(address).QueueLength == 3


@pytest.fixture
def following(server: LocalServer) -> Iterator[subprocess.Popen[str]]:
    """`petif status --follow` in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tango_server", "status", "--follow", "--json", "--device", server.address],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    yield process
    process.kill()
    process.communicate()


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT can't be sent to one process on Windows")
def test_following_goes_on_over_a_restart_until_ctrl_c(
    following: subprocess.Popen[str], server: LocalServer, start_server: Start
) -> None:
    def state() -> str:
        assert following.stdout is not None
        return str(json.loads(following.stdout.readline())["State"])

    assert state() == "ON"
    server.stop()
    while state() != "UNKNOWN":
        pass
    start_server("--port", server.address.split(":")[2].split("/")[0])
    while state() != "ON":
        pass
    following.send_signal(signal.SIGINT)
    assert following.wait(30) == 0


@pytest.mark.long
def test_waiting_goes_on_over_a_restart(
    start_server: Start, server: LocalServer, put: Put, run: Petif, root: Path
) -> None:
    tango.DeviceProxy(server.address).Pause()
    copies(put, 4)
    ids = [job["job_id"] for job in json.loads(run("add", root / "raw", "--json").stdout)["jobs"]]
    looks = follow(Client(server.address), ids, timeout=60.0)
    assert next(looks) == []
    server.stop()
    with ThreadPoolExecutor(1) as others:
        waiting = others.submit(lambda: [report for reports in looks for report in reports])
        again = start_server("--port", server.address.split(":")[2].split("/")[0])
        tango.DeviceProxy(again.address).Resume()
        found = waiting.result(60)
    assert [report.outcome for report in found] == ["converted"] * 4, found


@pytest.mark.long
def test_waiting_for_a_server_that_never_comes_back_ends(server: LocalServer, put: Put, run: Petif) -> None:
    (job,) = json.loads(run("add", put("qxrd_f32_64.tif"), "--json").stdout)["jobs"]
    server.stop()
    with pytest.raises(LinkDownError, match="no answer to GetReports"):
        list(follow(Client(server.address), [job["job_id"]], timeout=0.5))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_the_commands(shell: str) -> None:
    script = CliRunner().invoke(petif, env={"_PETIF_COMPLETE": f"{shell}_source"}, prog_name="petif").stdout
    assert "_PETIF_COMPLETE" in script
    asked = {"COMP_WORDS": "petif stat", "COMP_CWORD": "1" if shell != "fish" else "stat"}
    answer = CliRunner().invoke(petif, env={"_PETIF_COMPLETE": f"{shell}_complete", **asked}, prog_name="petif").stdout
    assert "status" in answer
    assert "statistics" in answer


def test_a_server_that_can_not_convert_says_why(start_server: Start, root: Path) -> None:
    configuration = root / "petif.toml"
    configuration.touch()
    address = start_server("--config", str(configuration)).address
    configuration.write_text("settle_complete = 2\n")
    tango.DeviceProxy(address).Init()
    shown = CliRunner().invoke(petif, ["status", "--device", address])
    assert shown.exit_code == 1
    assert "FAULT" in shown.stdout
    assert "must be longer than the settle time" in " ".join(shown.stdout.replace("│", "").split())
    refused = CliRunner().invoke(petif, ["reports", "--device", address])
    assert refused.exit_code == 3
    assert "cannot convert" in refused.stderr
    assert "must be longer than the settle time" in refused.stderr


def test_invalid_address_is_distinguished_from_a_stopped_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TANGO_HOST", raising=False)
    result = CliRunner().invoke(petif, ["status", "--device", "petif/converter/1"])
    assert result.exit_code == 3
    assert "TANGO_HOST" in result.stderr
    assert "tango://HOST:PORT" in result.stderr
    assert "Start it" not in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT can't be sent to one process on Windows")
def test_ctrl_c_ends_the_waiting_and_the_frames_stay_with_the_server(server: LocalServer, put: Put) -> None:
    proxy = tango.DeviceProxy(server.address)
    proxy.Pause()
    command = [sys.executable, "-m", "tango_server", "add", str(put("qxrd_f32_64.tif")), "--wait"]
    with subprocess.Popen([*command, "--device", server.address], stderr=subprocess.PIPE, text=True) as process:
        until(lambda: proxy.QueueLength == 1, "the frame is accepted")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the server continues with them" in errors
    assert "Traceback" not in errors
    assert proxy.QueueLength == 1
