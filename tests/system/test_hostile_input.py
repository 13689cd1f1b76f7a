"""A running server under hostile input: each bad frame costs itself."""

import http.client
import os
import random
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import hypothesis
import pytest
import tango
import tifffile
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from tests import hostile
from tests.system.conftest import settings
from tests.system.monitor_page import MonitorProcess
from tests.system.waiting import reports, submit, until


def test_frames_that_once_stopped_the_server_cost_themselves(
    start_server: Callable[..., hostile.LocalServer], root: Path, put: Callable[..., Path]
) -> None:
    far = put("qxrd_f32_64.tif", "far.tif")
    os.utime(far, ns=(0, 15_000_000_000 * 10**9))
    record = put("qxrd_f32_64.tif", "record.tif")
    text = r'{"petif": 1, "source": "\ud800\u001b[2J"}'
    tifffile.imwrite(record, tifffile.imread(record), description=text, metadata=None)
    nested = put("qxrd_f32_64.tif", "nested.tif")
    tifffile.imwrite(nested, tifffile.imread(nested), description="[" * 60_000, metadata=None)
    blanks = put("qxrd_f32_64.tif", "blanks.tif")
    blanks.with_name("blanks.tif.metadata").write_text("[metadata]\n" + " " * 900_000 + "\n")
    names = ("far", "record", "nested", "blanks", "good")
    good = put("qxrd_f32_64.tif", "good.tif")
    server = start_server()
    proxy = tango.DeviceProxy(server.address)
    found = reports(proxy, submit(proxy, *({"source": str(good.with_name(f"{name}.tif"))} for name in names)))
    outcomes = {Path(report["source"]).stem: report["outcome"] for report in found}
    assert outcomes == {"far": "converted", "record": "failed", "nested": "converted", "blanks": "converted",
                        "good": "converted"}  # fmt: skip
    assert proxy.state() != tango.DevState.FAULT, proxy.status()
    proxy.Init()
    assert proxy.state() != tango.DevState.FAULT, proxy.status()


def test_names_that_are_not_utf8_are_refused_by_name(proxy: tango.DeviceProxy, put: Callable[..., Path]) -> None:
    frame = put("qxrd_f32_64.tif")
    put("qxrd_f32_64.tif", "other.tif")
    frame.rename(os.fsdecode(os.fsencode(frame.parent) + b"/caf\xe9.tif"))
    proxy.AddFolder(str(frame.parent))
    until(lambda: proxy.NumProcessed == 2, "both frames are processed")
    assert proxy.NumFailed == 1
    assert "not UTF-8" in proxy.LastError
    assert r"caf\udce9.tif" in proxy.LastError


@given(draw=st.randoms(use_true_random=False))
@hypothesis.settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_whatever_a_file_or_a_request_holds_ends_with_a_reason(
    start_server: Callable[..., hostile.LocalServer], root: Path, running: list[tango.DeviceProxy], draw: random.Random
) -> None:
    if not running:  # one server for all that is drawn
        running.append(tango.DeviceProxy(start_server(*settings(*hostile.SETTINGS)).address))
    (proxy,) = running
    attempts = hostile.Attempts(root / "raw", draw)
    drawn = attempts.requests()
    jobs = hostile.submitted(proxy, [next(drawn) for _ in range(4)])
    for report in hostile.reports(proxy, jobs):
        assert report["outcome"] == "converted" or report["reason"], report
    hostile.pester(proxy, attempts, 4)
    assert proxy.state() != tango.DevState.FAULT, proxy.status()


@pytest.fixture
def running() -> list[tango.DeviceProxy]:
    return []


@pytest.mark.long
def test_a_short_attack_does_no_harm(tmp_path: Path) -> None:
    hostile.attack(tmp_path, inputs=300, seed=151, within=30.0)  # beside three other processes of tests


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [15, 16, 17])
def test_a_long_attack_does_no_harm(tmp_path: Path, seed: int) -> None:
    hostile.attack(tmp_path, inputs=10_000, seed=seed)


@pytest.mark.long
def test_the_monitor_answers_to_its_own_names_only() -> None:
    monitor = MonitorProcess("tango://127.0.0.1:9/petif/converter/1#dbase=no")
    try:
        own = urlsplit(monitor.url).netloc
        statuses = {}
        for host in (own, "evil.example", f"evil.example:{urlsplit(monitor.url).port}", ""):
            for path in ("/", "/ws"):
                connection = http.client.HTTPConnection(own, timeout=20)
                headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
                connection.request("GET", path, headers=headers)
                statuses[host, path] = connection.getresponse().status
                connection.close()
    finally:
        monitor.stop()
    assert statuses.pop((own, "/")) == 200
    statuses.pop((own, "/ws"))  # no websocket was asked for
    assert set(statuses.values()) == {403}, statuses
