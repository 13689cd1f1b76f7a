"""The server under a load of small frames, while another client asks it all the time."""

import itertools
import json
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import tango
import tifffile

from tango_server.client.local_server import LocalServer
from tests.system.waiting import all_done, submit, until

FRAMES = 1000
BATCH = 100
RECIPE = {"rotation": 90, "flip": "1", "pixel_type": "int32", "output": {"on_existing": "number"}}
"""With `number`, a frame that is converted twice leaves a second file."""


@pytest.fixture
def frames(root: Path, data: Path) -> list[Path]:
    """Frames of 64 x 64 in `raw`, each with a name of its own."""
    first = Path(shutil.copy(data / "qxrd_f32_64.tif", root / "raw" / "frame-0000.tif"))
    others = [root / "raw" / f"frame-{number:04d}.tif" for number in range(1, FRAMES)]
    for path in others:
        path.hardlink_to(first)
    return [first, *others]


def ask_all_the_time(address: str, spare: Iterator[Path], ended: Event) -> int:
    """Call one command after the other as a second client; return how many frames it has brought."""
    job_ids: deque[str] = deque(maxlen=5)
    with tango.EnsureOmniThread():
        proxy = tango.DeviceProxy(address)
        for done in itertools.count():
            if ended.wait(0.01):
                return 2 * done
            (job,) = submit(proxy, {"source": str(next(spare)), "recipe": RECIPE, "run_uid": "asked"})["jobs"]
            job_ids.append(job["job_id"])
            proxy.AddFiles([str(next(spare))])
            assert proxy.state() in {tango.DevState.RUNNING, tango.DevState.ON}
            assert "failed" in proxy.status()
            assert all(
                value.value >= 0 for value in proxy.read_attributes(["QueueLength", "NumProcessed", "NumFailed"])
            )
            answer = json.loads(proxy.GetReports(json.dumps({"job_ids": list(job_ids)})))
            assert len(answer["reports"]) + answer["pending"] == len(job_ids)
            assert json.loads(proxy.GetRunStatistics("asked"))["submitted"] == done + 1
    raise AssertionError


def spare_frames(root: Path, data: Path) -> Iterator[Path]:
    for number in itertools.count():
        yield Path(shutil.copy(data / "qxrd_f32_64.tif", root / "raw" / f"asked-{number:04d}.tif"))


def convert(server: LocalServer, proxy: tango.DeviceProxy, frames: Sequence[Path], spare: Iterator[Path]) -> int:
    """Submit the frames in batches and see them done; return how many frames the second client brought meanwhile."""
    ended = Event()
    with ThreadPoolExecutor(1) as clients:
        asking = clients.submit(ask_all_the_time, server.address, spare, ended)
        try:
            for start in range(0, len(frames), BATCH):
                requests = (
                    {"source": str(path), "recipe": RECIPE, "run_uid": "load"} for path in frames[start : start + BATCH]
                )
                assert len(submit(proxy, *requests)["jobs"]) == BATCH
            until(lambda: asking.done() or pending(proxy) == 0, "every frame of the load is converted")
        finally:
            ended.set()
        brought = asking.result()  # raises what a command has raised
    all_done(proxy)
    return brought


def statistics_of(proxy: tango.DeviceProxy, run_uid: str) -> dict[str, Any]:
    statistics: dict[str, Any] = json.loads(proxy.GetRunStatistics(run_uid))
    return statistics


def pending(proxy: tango.DeviceProxy) -> int:
    return int(statistics_of(proxy, "load")["pending"])


@pytest.mark.long
def test_each_frame_is_converted_once_while_another_client_polls(
    server: LocalServer, proxy: tango.DeviceProxy, root: Path, data: Path, frames: list[Path]
) -> None:
    brought = convert(server, proxy, frames, spare_frames(root, data))
    assert brought > 0
    outputs = sorted((root / "processed").glob("frame-*.tif"))
    assert [path.name for path in outputs] == [path.name for path in frames]
    expected = np.flip(np.rot90(tifffile.imread(data / "qxrd_f32_64.tif")), 1).astype(np.int32)
    for path in outputs:
        np.testing.assert_array_equal(tifffile.imread(path), expected)

    reports = json.loads(proxy.GetReports(json.dumps({"run_uid": "load"})))["reports"]
    assert sorted(report["output"] for report in reports) == [str(path) for path in outputs]
    statistics = statistics_of(proxy, "load")
    assert (statistics["submitted"], statistics["converted"], statistics["pending"]) == (FRAMES, FRAMES, 0)
    assert statistics["bytes_in"] == sum(path.stat().st_size for path in frames)
    assert statistics["bytes_out"] == sum(path.stat().st_size for path in outputs)
    latencies = [report["latency"] for report in reports]
    assert statistics["latency_p95"] == pytest.approx(np.percentile(latencies, 95, method="inverted_cdf"))

    assert statistics_of(proxy, "asked")["converted"] == brought // 2
    assert len(list((root / "processed").glob("asked-*.tif"))) == brought
    until(lambda: proxy.NumProcessed == FRAMES + brought, "the counters tell of every frame")
    assert (proxy.StatisticsTotalFrames, proxy.NumFailed) == (FRAMES + brought, 0)
    assert not list(root.rglob("*.petif-tmp"))
