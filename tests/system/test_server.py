"""The server by itself, driven as any Tango client would."""

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from typing import Any

import fabio
import numpy as np
import psutil
import pytest
import tango
import tifffile
from tango.utils import PyTangoThread

from petif_bluesky.sim.qxrd_file import write_frame
from tango_server.client.client import Client, UnknownRunError
from tango_server.client.local_server import LocalServer
from tango_server.conversion.sidecar import sidecar_path
from tango_server.messages import RunStatistics
from tests.conftest import QXRD_FILES
from tests.system.conftest import settings
from tests.system.waiting import all_done, reports, submit, until, workers_of

Put = Callable[..., Path]
Start = Callable[..., LocalServer]


DATABASE = pytest.param("database", marks=pytest.mark.long)


@pytest.fixture(params=["reused", DATABASE])
def deployment(request: pytest.FixtureRequest) -> str:
    """Every test here runs both ways."""
    way: str = request.param
    return way


@pytest.fixture
def server(start_server: Start) -> LocalServer:
    return start_server(*TWO_WORKERS)


TWO_WORKERS = settings("numworkers=2")
ONE_WAY = pytest.mark.parametrize("deployment", ["reused"])
"""For what has nothing to do with where the settings come from, and takes long."""
OWN_PROCESS = pytest.mark.parametrize("deployment", ["standalone", DATABASE])
"""For what a program says when it starts."""


def assert_is(output: Path, expected: np.ndarray[Any, Any]) -> None:
    with fabio.open(str(output)) as image:
        np.testing.assert_array_equal(image.data, expected)
    with tifffile.TiffFile(output) as tiff:
        np.testing.assert_array_equal(tiff.asarray(), expected)
    assert tiff.pages[0].dtype == expected.dtype


def big_frames(folder: Path, count: int) -> list[Path]:
    """Write frames that take long enough to convert for something to happen meanwhile."""
    from datetime import UTC, datetime

    image = np.arange(1024 * 1024, dtype=np.float32).reshape(1024, 1024)
    paths = [folder / f"big-{number:05d}.tif" for number in range(count)]
    write_frame(paths[0], image, document_name="big", acquired=datetime.now(UTC))
    for path in paths[1:]:
        os.link(paths[0], path)
    return paths


def at_work(server: LocalServer, root: Path) -> tuple[dict[str, Any], list[psutil.Process], list[Path]]:
    """Return the answer about 30 frames that the server is busy with, its processes (itself first), and the frames."""
    proxy = tango.DeviceProxy(server.address)
    paths = big_frames(root / "raw", 30)
    answer = submit(proxy, *({"source": str(path)} for path in paths))
    until(lambda: proxy.NumProcessed >= 3, "some frames are converted")
    return answer, [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)], paths


def test_a_folder_is_converted_by_the_names_of_the_ancestor(proxy: tango.DeviceProxy, root: Path, put: Put) -> None:
    for name in QXRD_FILES:
        put(name)
    put("qxrd_f32_64.tif", "pattern.dark.tif")
    before = (proxy.NumProcessed, proxy.NumWorkers, proxy.ConfRotation, proxy.ConfFlip, proxy.ConfType)
    assert before == (0, 2, 0, "none", "int32")
    assert proxy.AddFolder(str(root / "raw")) == 0
    all_done(proxy)
    proxy.AddFiles([str(put("qxrd_f32_64.tif", "one.tif")), str(put("qxrd_f32_64.tif", "two.tif"))])
    assert proxy.AddFileOrDir(str(put("qxrd_f32_64.tif", "three.tif"))) == 0
    all_done(proxy)
    expected = sorted([*QXRD_FILES, "one.tif", "two.tif", "three.tif"])
    assert sorted(path.name for path in (root / "processed").iterdir()) == expected
    assert proxy.NumProcessed == proxy.StatisticsTotalFrames == 6
    assert proxy.StatisticsAverageTime == pytest.approx(proxy.StatisticsTotalTime / 6)
    assert proxy.StatisticsTotalTime > 0
    assert proxy.AddFileOrDir(str(root / "raw")) == 0
    all_done(proxy)
    assert proxy.NumProcessed == 6 + 6
    proxy.ResetStats()
    until(lambda: proxy.NumProcessed == 0, "the counters are reset")
    assert proxy.StatisticsTotalTime == proxy.StatisticsTotalFrames == 0


def test_the_ancestors_tests_of_paths_stay_within_the_roots(proxy: tango.DeviceProxy, root: Path, put: Put) -> None:
    path = put("qxrd_f32_64.tif")
    assert proxy.TestOsExists(str(path))
    assert proxy.TestOsIsFile(str(path))
    assert proxy.TestOsIsDir(str(root / "raw"))
    assert not proxy.TestOsExists(str(root / "raw" / "nothing.tif"))
    with pytest.raises(tango.DevFailed, match="outside the folders"):
        proxy.TestOsExists("/etc/passwd")


@ONE_WAY
@pytest.mark.parametrize("pixel_type", ["int32", "uint32"])
def test_each_output_equals_numpys(proxy: tango.DeviceProxy, root: Path, put: Put, data: Path, pixel_type: str) -> None:
    recipe = {"rotation": 270, "flip": "0", "pixel_type": pixel_type}
    requests = [{"source": str(put(name)), "recipe": recipe} for name in QXRD_FILES]
    for name, report in zip(QXRD_FILES, reports(proxy, submit(proxy, *requests)), strict=True):
        expected = np.flip(np.rot90(tifffile.imread(data / name), 3), 0).astype(pixel_type)
        assert (report["outcome"], report["output"]) == ("converted", str(root / "processed" / name)), report
        assert_is(root / "processed" / name, expected)


def test_invalid_file_is_reported_and_the_others_are_converted(proxy: tango.DeviceProxy, root: Path, put: Put) -> None:
    bad = [put("not_a_tiff.tif"), put("truncated_tail.tif"), put("empty.tif"), root / "raw" / "never.tif"]
    requests = [{"source": str(path)} for path in [*bad, put("qxrd_f32_64.tif")]]
    *failed, good = reports(proxy, submit(proxy, *requests))
    assert good["outcome"] == "converted"
    assert [report["outcome"] for report in failed] == ["failed"] * 4
    words = ["starts with b'hell'", "the file ends at 16548", "it has only 0 bytes", "no such file"]
    for report, path, found in zip(failed, bad, words, strict=True):
        assert str(path) in report["reason"]
        assert found in report["reason"]
    until(lambda: proxy.NumFailed == 4, "the counters tell of them, too")
    assert proxy.state() == tango.DevState.ALARM
    assert any(proxy.LastError == report["reason"] for report in failed)
    assert sorted(proxy.FailedFiles) == sorted(map(str, bad))
    proxy.Acknowledge()
    until(lambda: proxy.state() == tango.DevState.ON, "the alarm is over")
    assert [path.name for path in (root / "processed").iterdir()] == ["qxrd_f32_64.tif"]


def test_a_refused_request_says_why_and_is_booked_for_its_run(proxy: tango.DeviceProxy, root: Path, put: Put) -> None:
    inside = str(put("qxrd_f32_64.tif"))
    answer = submit(
        proxy,
        {"source": "/etc/passwd", "run_uid": "run"},
        {"source": inside, "run_uid": "run", "recipe": {"rotation": 45}},
        {"source": inside, "run_uid": "run", "recipe": {"output": {"mode": "in_place"}}},
        {"source": str(root / "elsewhere.tif"), "run_uid": "run"},
    )
    assert answer["jobs"] == []
    words = ["outside the folders", "got 45", "in place", "no folder named 'raw'"]
    for refused, word in zip(answer["refused"], words, strict=True):
        assert word in refused["reason"]
    statistics = json.loads(proxy.GetRunStatistics("run"))
    assert (statistics["submitted"], statistics["failed"], statistics["pending"]) == (4, 4, 0)
    with pytest.raises(tango.DevFailed, match="outside the folders"):
        proxy.AddFiles(["/etc/passwd"])


@pytest.mark.long
@ONE_WAY
def test_missing_files_block_no_worker(start_server: Start, root: Path, put: Put) -> None:
    proxy = tango.DeviceProxy(start_server("--set", "timeout=3").address)
    missing = submit(proxy, *({"source": str(root / "raw" / f"missing-{n}.tif")} for n in range(50)))
    (good,) = reports(proxy, submit(proxy, {"source": str(put("qxrd_f32_64.tif"))}))
    assert good["outcome"] == "converted"
    until(lambda: proxy.QueueLength == 50, "only they are left")
    assert {report["outcome"] for report in reports(proxy, missing)} == {"failed"}


def test_the_same_key_is_the_same_job(proxy: tango.DeviceProxy, put: Put) -> None:
    request = {"source": str(put("qxrd_f32_64.tif")), "key": "run/pe/1", "run_uid": "run"}
    first, again = submit(proxy, request), submit(proxy, request)
    assert first == again
    reports(proxy, first)
    assert json.loads(proxy.GetRunStatistics("run"))["submitted"] == 1


def test_unknown_id_is_an_error_but_an_announced_run_is_known(proxy: tango.DeviceProxy) -> None:
    with pytest.raises(tango.DevFailed, match="nobody"):
        proxy.GetRunStatistics("nobody")
    with pytest.raises(tango.DevFailed, match="nothing"):
        proxy.GetReports(json.dumps({"job_ids": ["nothing"]}))
    submit(proxy, runs=("announced",))
    assert json.loads(proxy.GetRunStatistics("announced"))["submitted"] == 0


def test_wrong_json_is_refused_with_the_field(proxy: tango.DeviceProxy) -> None:
    with pytest.raises(tango.DevFailed, match=r"rotation: .*got 45"):
        proxy.SetRecipe('{"rotation": 45}')
    with pytest.raises(tango.DevFailed, match="sauce"):
        proxy.Submit('{"sauce": []}')
    with pytest.raises(tango.DevFailed, match="invalid JSON"):
        proxy.GetReports("{")


def test_changes_are_pushed(proxy: tango.DeviceProxy, put: Put) -> None:
    seen: Queue[Any] = Queue()
    names = ["NumProcessed", "LastOutput", "State"]
    subscriptions = [proxy.subscribe_event(name, tango.EventType.CHANGE_EVENT, seen.put) for name in names]
    proxy.AddFiles([str(put("qxrd_f32_64.tif"))])
    wanted = {"numprocessed": 1, "state": tango.DevState.ON}
    states = set()
    while wanted:
        event = seen.get(timeout=10)
        assert not event.err, event.errors
        name, value = event.attr_value.name.lower(), event.attr_value.value
        states.add(value) if name == "state" else None
        if wanted.get(name) == value and (
            name != "state" or tango.DevState.RUNNING in states or "numprocessed" not in wanted
        ):
            del wanted[name]
    for subscription in subscriptions:
        proxy.unsubscribe_event(subscription)


def test_a_sidecar_that_comes_after_its_frame_is_carried(start_server: Start, root: Path, put: Put) -> None:
    proxy = tango.DeviceProxy(start_server("--set", "sidecar_timeout=30").address)
    source, output = put("qxrd_f32_64.tif"), root / "processed" / "qxrd_f32_64.tif"
    answer = submit(proxy, {"source": str(source), "recipe": {"rotation": 90}})
    until(output.exists, "the image is visible, whatever the sidecar does")
    assert json.loads(proxy.GetReports(json.dumps({"job_ids": [answer["jobs"][0]["job_id"]]})))["pending"] == 1
    sidecar_path(source).write_text("[metadata]\nwidth=64\n[centerfinder]\ncenterX=3\ncenterY=10\n")
    (report,) = reports(proxy, answer)
    assert report["sidecar"] == "carried"
    assert report["latency"] < report["finished"] - report["accepted"] + 1
    assert "centerX=10\ncenterY=60\n" in sidecar_path(output).read_text()


def test_a_sidecar_that_never_comes_is_reported_as_absent(proxy: tango.DeviceProxy, put: Put) -> None:
    (report,) = reports(proxy, submit(proxy, {"source": str(put("qxrd_f32_64.tif"))}))
    assert (report["outcome"], report["sidecar"]) == ("converted", "absent")


def test_a_template_takes_the_fields_of_its_frame(proxy: tango.DeviceProxy, root: Path, put: Put) -> None:
    recipe = {"output": {"template": "{sample}_{seq_num:03d}_{run:.4}"}}
    request = {"source": str(put("qxrd_f32_64.tif")), "run_uid": "0123-4567", "seq_num": 7, "recipe": recipe}
    answer = submit(proxy, {**request, "metadata": {"sample": "CeO2"}}, {**request, "metadata": {"sample": "../x"}})
    (report,) = reports(proxy, answer)
    assert report["output"] == str(root / "processed" / "CeO2_007_0123.tif")
    assert "separators" in answer["refused"][0]["reason"]


def test_names_in_any_script_are_converted(proxy: tango.DeviceProxy, root: Path, put: Put) -> None:
    seen: Queue[Any] = Queue()
    subscription = proxy.subscribe_event("NumProcessed", tango.EventType.CHANGE_EVENT, seen.put)
    sources = [put("qxrd_f32_64.tif", name) for name in ("\u03b2-Sn \u2013 \u4e2d.tif", "plain.tif")]
    first, second = reports(proxy, submit(proxy, *({"source": str(source), "run_uid": "run"} for source in sources)))
    assert first["output"] == str(root / "processed" / sources[0].name)
    assert second["outcome"] == "converted"
    missing = root / "raw" / "\u0394.tif"
    (failed,) = reports(proxy, submit(proxy, {"source": str(missing)}))
    assert str(missing) in failed["reason"]
    assert "\\u0394.tif" in proxy.LastError
    assert "\\u0394.tif" in proxy.status()
    while seen.get(timeout=10).attr_value.value != 3:  # events go on after such a name
        pass
    proxy.unsubscribe_event(subscription)


def test_init_keeps_the_queue_and_the_recipe_that_was_set(proxy: tango.DeviceProxy, root: Path, put: Put) -> None:
    proxy.SetRecipe(json.dumps({"rotation": 180, "pixel_type": "uint16"}))
    answer = submit(proxy, {"source": str(root / "raw" / "late.tif"), "run_uid": "run"})
    proxy.Init()
    assert (proxy.ConfRotation, proxy.ConfType, proxy.QueueLength) == (180, "uint16", 1)
    put("qxrd_r16_64.tif", "late.tif")
    (report,) = reports(proxy, answer)
    assert report["outcome"] == "converted"
    assert_is(root / "processed" / "late.tif", np.rot90(tifffile.imread(root / "raw" / "late.tif"), 2))


@pytest.mark.long
def test_killed_worker_costs_only_its_own_frame_an_attempt(
    server: LocalServer, proxy: tango.DeviceProxy, root: Path
) -> None:
    paths = big_frames(root / "raw", 30)
    answer = submit(proxy, *({"source": str(path)} for path in paths))
    until(lambda: proxy.NumProcessed >= 3, "some frames are converted")
    victim = workers_of(server.pid)[0]
    victim.kill()
    assert [report["outcome"] for report in reports(proxy, answer)] == ["converted"] * 30
    assert not victim.is_running()
    for path in paths:
        np.testing.assert_array_equal(
            tifffile.imread(root / "processed" / path.name), tifffile.imread(path).astype(np.int32)
        )
    assert not list(root.rglob("*.petif-tmp"))


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.skipif(os.name == "nt", reason="Windows ends a server by its standard input, which every test here does")
def test_a_signal_ends_the_server_in_good_order(start_server: Start, root: Path, number: signal.Signals) -> None:
    answer, family, _ = at_work(start_server(*TWO_WORKERS), root)
    family[0].send_signal(number)
    _, alive = psutil.wait_procs(family, timeout=15)
    assert not alive
    assert not list(root.rglob("*.petif-tmp"))
    again = tango.DeviceProxy(start_server().address)
    assert [report["outcome"] for report in reports(again, answer)] == ["converted"] * 30


def test_killed_server_ends_its_workers_and_resumes_its_queue(start_server: Start, root: Path) -> None:
    answer, family, paths = at_work(start_server(*TWO_WORKERS), root)
    family[0].kill()
    _, alive = psutil.wait_procs(family, timeout=15)
    assert not alive
    again = tango.DeviceProxy(start_server().address)
    assert [report["outcome"] for report in reports(again, answer)] == ["converted"] * 30
    for path in paths:
        np.testing.assert_array_equal(
            tifffile.imread(root / "processed" / path.name), tifffile.imread(path).astype(np.int32)
        )
    assert not list(root.rglob("*.petif-tmp"))


@ONE_WAY
def test_counts_and_changes_survive_a_killed_server(start_server: Start, put: Put) -> None:
    server = start_server(*TWO_WORKERS)
    client = Client(server.address)
    before = client.reports_after().position
    requests = [{"source": str(put("qxrd_f32_64.tif", f"{run}.tif")), "run_uid": run} for run in ("a", "b")]
    client.submit(requests, run_counts={"a": {"primary": (3, 1)}, "c": {"fly": (0, 0)}})
    psutil.Process(server.pid).kill()
    again = Client(start_server().address)
    assert again.run_statistics("a").run_counts == {"primary": (3, 1)}
    assert again.run_statistics("b").run_counts == {}
    assert again.run_statistics("c") == RunStatistics(run_uid="c", run_counts={"fly": (0, 0)})
    again.submit([], run_counts={"a": {"primary": (2, 3)}})
    assert again.run_statistics("a").run_counts == {"primary": (3, 3)}
    until(lambda: len(again.reports_after(before).reports) == 2, "both are converted")
    answer = again.reports_after(before)
    assert {report.run_uid for report in answer.reports} == {"a", "b"}
    assert again.reports_after(answer.position).reports == []
    with pytest.raises(UnknownRunError, match="after: 'nothing'"):
        again.reports_after("nothing")


@pytest.mark.long
@ONE_WAY
def test_a_server_where_another_one_was_can_be_used_at_once(start_server: Start) -> None:
    first = start_server()
    call_at_once([tango.DeviceProxy(first.address) for _ in range(3)])
    first.stop()
    second = start_server("--port", first.address.split(":")[2].split("/")[0])
    assert second.address == first.address
    assert tango.DeviceProxy(second.address).state() == tango.DevState.ON


def call_at_once(proxies: list[tango.DeviceProxy]) -> None:
    """Make this process open a connection for each of the proxies, or nearly so."""
    together = threading.Barrier(len(proxies))

    def call(proxy: tango.DeviceProxy) -> None:
        together.wait()
        for _ in range(30):
            proxy.status()

    threads = [PyTangoThread(target=call, args=(proxy,)) for proxy in proxies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.long
@OWN_PROCESS
def test_a_second_server_on_the_same_ledger_is_refused_or_in_fault(start_server: Start, deployment: str) -> None:
    first = start_server()
    if deployment == "standalone":
        with pytest.raises(RuntimeError, match="another server uses it"):
            start_server()
        return
    second = start_server()
    proxy = tango.DeviceProxy(second.address)
    assert proxy.state() == tango.DevState.FAULT
    assert "another process has it open" in proxy.status()
    with pytest.raises(tango.DevFailed, match="another process has it open"):
        proxy.AddFiles(["/x.tif"])
    first.stop()
    proxy.Init()
    assert proxy.state() == tango.DevState.ON


@OWN_PROCESS
def test_wrong_setting_is_reported_at_once_or_is_a_fault(start_server: Start, deployment: str) -> None:
    if deployment == "standalone":
        with pytest.raises(RuntimeError, match=r"timeout: .*got 'soon'"):
            start_server("--set", "timeout=soon")
        return
    proxy = tango.DeviceProxy(start_server("--set", "timeout=soon").address)
    assert proxy.state() == tango.DevState.FAULT
    assert "got 'soon'" in proxy.status()
