"""What an operator does with a running server: pause, cancel, retry, change settings; and what it does in need."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tango
import tifffile

from tango_server.client.local_server import LocalServer
from tango_server.conversion.tiff.parser import read_structure
from tango_server.conversion.tiff.record import read_provenance
from tests.system.conftest import settings
from tests.system.waiting import all_done, reports, submit, until

Put = Callable[..., Path]
Start = Callable[..., LocalServer]


def copies(put: Put, count: int, name: str = "frame") -> list[Path]:
    return [put("qxrd_f32_64.tif", f"{name}-{number:05d}.tif") for number in range(count)]


def sources(paths: list[Path], **fields: Any) -> list[dict[str, Any]]:
    return [{"source": str(path), **fields} for path in paths]


def refusal(call: Callable[[], object]) -> str:
    """Return the reason and the text of the error that a call ends in."""
    with pytest.raises(tango.DevFailed) as caught:
        call()
    return f"{caught.value.args[0].reason}: {caught.value.args[0].desc}"


def test_paused_server_accepts_but_converts_only_after_resume(start_server: Start, root: Path, put: Put) -> None:
    server = start_server()
    proxy = tango.DeviceProxy(server.address)
    proxy.Pause()
    until(lambda: proxy.state() == tango.DevState.STANDBY, "the server is paused")
    answer = submit(proxy, *sources(copies(put, 5)))
    assert proxy.QueueLength == 5
    proxy.Init()
    assert proxy.state() == tango.DevState.STANDBY
    server.stop()
    proxy = tango.DeviceProxy(start_server().address)
    assert proxy.state() == tango.DevState.STANDBY
    assert "Resume" in proxy.status()
    assert (proxy.NumProcessed, proxy.QueueLength) == (0, 5)
    assert not (root / "processed").exists()
    proxy.Resume()
    assert [report["outcome"] for report in reports(proxy, answer)] == ["converted"] * 5
    until(lambda: proxy.state() == tango.DevState.ON, "it is idle again")


@pytest.mark.parametrize("which", ["job_ids", "run_uid", "all"])
def test_cancelled_frames_are_not_converted_and_say_so(
    proxy: tango.DeviceProxy, root: Path, put: Put, which: str
) -> None:
    proxy.Pause()
    kept = submit(proxy, *sources(copies(put, 3, "kept"), run_uid="kept"))
    gone = submit(proxy, *sources(copies(put, 600, "gone"), run_uid="gone"))
    query = {"job_ids": [job["job_id"] for job in gone["jobs"]]} if which == "job_ids" else {"run_uid": "gone"}
    expected = 603 if which == "all" else 600
    answer = json.loads(proxy.Cancel(json.dumps({"all": True} if which == "all" else query)))
    assert answer == {"cancelled": expected}
    until(lambda: proxy.QueueLength == 603 - expected, "the queue is shorter")
    proxy.Resume()
    cancelled = reports(proxy, gone)
    assert {(report["outcome"], report["reason"]) for report in cancelled} == {("skipped", "cancelled on request")}
    statistics = json.loads(proxy.GetRunStatistics("gone"))
    assert (statistics["submitted"], statistics["skipped"], statistics["pending"]) == (600, 600, 0)
    outcomes = {report["outcome"] for report in reports(proxy, kept)}
    assert outcomes == ({"skipped"} if which == "all" else {"converted"})
    assert proxy.state() != tango.DevState.ALARM


def test_failed_frames_are_retried_as_the_same_jobs(proxy: tango.DeviceProxy, root: Path, put: Put) -> None:
    late = root / "raw" / "late.tif"
    answer = submit(proxy, {"source": str(late), "run_uid": "run"})
    assert reports(proxy, answer)[0]["outcome"] == "failed"
    until(lambda: proxy.NumFailed == 1, "the failure is counted")
    put("qxrd_f32_64.tif", "late.tif")
    assert proxy.RetryFailed() == 1
    (report,) = reports(proxy, answer)
    assert report["outcome"] == "converted"
    statistics = json.loads(proxy.GetRunStatistics("run"))
    assert (statistics["submitted"], statistics["converted"], statistics["failed"]) == (1, 1, 0)
    assert list(proxy.FailedFiles or ()) == []
    assert proxy.RetryFailed() == 0


def test_what_failed_before_a_reset_is_left_alone(proxy: tango.DeviceProxy, root: Path) -> None:
    reports(proxy, submit(proxy, {"source": str(root / "raw" / "never.tif")}))
    proxy.ResetStats()
    assert proxy.RetryFailed() == 0


@pytest.mark.long
def test_a_folder_of_20000_files_does_not_keep_the_client_waiting(start_server: Start, root: Path, data: Path) -> None:
    proxy = tango.DeviceProxy(start_server().address)
    proxy.set_timeout_millis(2500)
    first = Path(shutil.copy(data / "qxrd_f32_64.tif", root / "raw" / "frame-00000.tif"))
    for number in range(1, 20_000):
        os.link(first, root / "raw" / f"frame-{number:05d}.tif")
    proxy.Pause()
    assert proxy.AddFolder(str(root / "raw")) == 0
    assert proxy.QueueLength >= 1
    until(lambda: proxy.QueueLength == 20_000, "every frame is queued")
    assert json.loads(proxy.Cancel('{"all": true}'))["cancelled"] == 20_000


@pytest.mark.long
def test_folder_added_before_a_kill_is_processed_after_restart(start_server: Start, root: Path, data: Path) -> None:
    server = start_server()
    first = Path(shutil.copy(data / "qxrd_f32_64.tif", root / "raw" / "frame-00000.tif"))
    for number in range(1, 3000):
        os.link(first, root / "raw" / f"frame-{number:05d}.tif")
    proxy = tango.DeviceProxy(server.address)
    proxy.Pause()
    proxy.AddFolder(str(root / "raw"))
    os.kill(server.pid, 9)
    server.stop()
    proxy = tango.DeviceProxy(start_server().address)
    until(lambda: proxy.QueueLength == 3000, "every frame is queued, none twice")


def test_invalid_folder_and_long_list_are_reported(proxy: tango.DeviceProxy, root: Path, put: Put) -> None:
    assert "no such folder" in refusal(lambda: proxy.AddFolder(str(root / "raw" / "nothing")))
    good = copies(put, 150)
    proxy.AddFiles([*map(str, good), "/etc/passwd"])
    all_done(proxy)
    assert (proxy.StatisticsTotalFrames, proxy.NumFailed) == (150, 1)
    assert "outside the folders" in proxy.LastError
    assert list(proxy.FailedFiles) == ["/etc/passwd"]


def test_a_full_queue_refuses_the_whole_call_and_takes_it_later(start_server: Start, put: Put) -> None:
    proxy = tango.DeviceProxy(start_server(*settings("backlog_limit=10")).address)
    proxy.Pause()
    paths = copies(put, 12)
    submit(proxy, *sources(paths[:8]))
    later = {"requests": sources(paths[8:], run_uid="run"), "runs": ["run"]}
    assert refusal(lambda: proxy.Submit(json.dumps(later))).startswith("PETIF_BacklogFull: ")
    assert refusal(lambda: proxy.AddFiles([str(path) for path in paths[8:]])).startswith("PETIF_BacklogFull")
    assert proxy.QueueLength == 8
    proxy.Resume()
    all_done(proxy)
    proxy.Submit(json.dumps(later))
    all_done(proxy)
    assert proxy.StatisticsTotalFrames == 12


def test_a_folder_beyond_the_limit_of_the_queue_is_taken_bit_by_bit(start_server: Start, root: Path, put: Put) -> None:
    proxy = tango.DeviceProxy(start_server(*settings("backlog_limit=50")).address)
    copies(put, 300)
    proxy.AddFolder(str(root / "raw"))
    all_done(proxy)
    assert (proxy.StatisticsTotalFrames, proxy.NumFailed) == (300, 0)


def test_a_nearly_full_disk_refuses_and_says_so(start_server: Start, put: Put) -> None:
    limits = ("free_space_warning=900000000000000", "free_space_limit=800000000000000")
    proxy = tango.DeviceProxy(start_server(*settings(*limits)).address)
    until(lambda: proxy.state() == tango.DevState.ALARM, "the disk is found to be nearly full")
    assert refusal(lambda: submit(proxy, *sources(copies(put, 1)))).startswith("PETIF_DiskFull")
    assert "free_space_limit" in proxy.status()
    free = proxy.read_attribute("FreeSpace")
    assert free.quality == tango.AttrQuality.ATTR_WARNING
    assert 0 < free.value < 800000000000000


def test_missing_frame_leaves_a_placeholder_of_the_right_shape(start_server: Start, root: Path, put: Put) -> None:
    asked = settings("on_timeout=placeholder", "placeholder_shape=48, 32")
    proxy = tango.DeviceProxy(start_server(*asked).address)
    recipe = {"rotation": 90, "pixel_type": "int32"}
    never = str(root / "raw" / "never.tif")
    known = {"source": str(root / "raw" / "known.tif"), "recipe": recipe, "metadata": {"shape": [1, 20, 10]}}
    first, second = reports(proxy, submit(proxy, {"source": never, "recipe": recipe}, known))
    assert (first["outcome"], first["shape"], second["shape"]) == ("placeholder", [32, 48], [10, 20])
    assert "no such file" in first["reason"]
    image = tifffile.imread(root / "processed" / "never.tif")
    assert (image.dtype, image.shape, image.any()) == (np.dtype("int32"), (32, 48), np.False_)
    provenance = read_provenance(read_structure(root / "processed" / "never.tif"))
    assert provenance is not None
    assert provenance.placeholder
    assert (proxy.NumPlaceholders, proxy.NumFailed, proxy.state()) == (2, 0, tango.DevState.ON)
    put("qxrd_f32_64.tif", "never.tif")
    (report,) = reports(proxy, submit(proxy, {"source": never, "recipe": recipe}))
    assert report["outcome"] == "converted"
    assert tifffile.imread(root / "processed" / "never.tif").any()


def test_by_age_alone_a_file_counts_as_the_ancestor_counted(start_server: Start, put: Put) -> None:
    proxy = tango.DeviceProxy(start_server(*settings("readiness=age", "min_size=10000", "timeout=0.9")).address)
    old = put("qxrd_f32_64.tif")
    os.utime(old, (1e9, 1e9))
    assert reports(proxy, submit(proxy, {"source": str(old)}))[0]["outcome"] == "converted"
    (report,) = reports(proxy, submit(proxy, {"source": str(put("qxrd_r16_64.tif"))}))
    assert report["outcome"] == "failed"
    assert "min_size is 10000" in report["reason"]


def test_the_file_of_settings_is_read_again_by_init(start_server: Start, root: Path, tmp_path: Path) -> None:
    file = tmp_path / "petif.toml"
    file.write_text("numworkers = 1\nrecipe = { preset = 'xdi-unsigned', rotation = 270 }\n")
    server = LocalServer(root, root / "state", ["--config", str(file)])
    with server:
        proxy = tango.DeviceProxy(server.address)
        assert (proxy.NumWorkers, proxy.ConfRotation, proxy.ConfType) == (1, 270, "uint32")
        file.write_text("numworker = 3\n")
        proxy.Init()
        assert proxy.state() == tango.DevState.FAULT
        assert "numworker: unknown name" in proxy.status()
        file.write_text("numworkers = \n")
        proxy.Init()
        assert "line 1" in proxy.status()
        file.write_text("numworkers = 3\n")
        proxy.Init()
        assert (proxy.state(), proxy.NumWorkers) == (tango.DevState.ON, 3)


def test_every_attribute_has_a_description(proxy: tango.DeviceProxy) -> None:
    for name in proxy.get_attribute_list():
        if name in {"State", "Status"}:
            continue
        config = proxy.get_attribute_config(name)
        assert config.label not in {"", name}, name
        assert len(config.description) > 10, name
        assert config.format, name
        if config.data_type not in {tango.DevString, tango.DevBoolean}:
            assert config.unit, name
        subscription = proxy.subscribe_event(name, tango.EventType.CHANGE_EVENT, lambda _: None)
        proxy.unsubscribe_event(subscription)


def test_detector_pc_path_is_translated_and_kept_within_the_roots(start_server: Start, root: Path, put: Put) -> None:
    proxy = tango.DeviceProxy(start_server(*settings(rf"path_maps=Y:\ -> {root}")).address)
    put("qxrd_f32_64.tif")
    (report,) = reports(proxy, submit(proxy, {"source": r"y:\raw\qxrd_f32_64.tif"}))
    assert (report["outcome"], report["source"]) == ("converted", str(root / "raw" / "qxrd_f32_64.tif"))
    answer = submit(proxy, {"source": r"Y:\..\..\etc\passwd"}, {"source": r"Z:\raw\a.tif"})
    assert len(answer["refused"]) == 2


def test_watched_folder_is_converted_without_submission(start_server: Start, root: Path, put: Put) -> None:
    server = start_server(*settings(f"watch={root / 'raw'}", "watch_interval=0.1", "watch_existing=true"))
    proxy = tango.DeviceProxy(server.address)
    put("qxrd_f32_64.tif", "first.tif")
    until((root / "processed" / "first.tif").exists, "the first frame is converted")
    all_done(proxy)
    proxy.Init()
    put("qxrd_f32_64.tif", "second.tif")
    until((root / "processed" / "second.tif").exists, "the second frame is converted after Init, too")
    all_done(proxy)
    assert proxy.NumProcessed == 1
