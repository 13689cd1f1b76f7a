"""A server that is killed while a file becomes one job for each frame: no frame is lost, none is made twice."""

import json
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest
import tango

from tango_server.client.local_server import LocalServer
from tests.system.conftest import FAST, settings
from tests.system.waiting import all_done, submit, until

FRAMES = 40


@pytest.mark.long
def test_a_killed_server_goes_on_with_the_frames_of_a_file(root: Path) -> None:
    source = root / "raw" / "scan.h5"
    with h5py.File(source, "w") as file:
        file["/entry/data/data"] = np.arange(FRAMES * 64, dtype=np.uint16).reshape(FRAMES, 8, 8)
    small, large = (settings(*FAST, f"backlog_limit={limit}") for limit in (7, 1000))
    with LocalServer(root, root / "state", small) as server:
        proxy = tango.DeviceProxy(server.address)
        proxy.command_inout("Pause")
        submit(proxy, {"source": str(source), "run_uid": "run-1"})
        until(lambda: proxy.read_attribute("QueueLength").value == 8, "seven frames and their file wait")
        psutil.Process(server.pid).kill()
    with LocalServer(root, root / "state", large) as server:
        proxy = tango.DeviceProxy(server.address)
        proxy.command_inout("Resume")
        all_done(proxy)
        reports = json.loads(proxy.command_inout("GetReports", json.dumps({"run_uid": "run-1"})))["reports"]
    frames = [report["frame"] for report in reports if report["outcome"] == "converted"]
    assert sorted(frames) == list(range(FRAMES))
    assert len(reports) == FRAMES + 1
