"""Many clients that ask for much at once keep nobody waiting who asks for little."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import tango

from tango_server.client.local_server import LocalServer
from tests.system.conftest import settings
from tests.system.waiting import until

CLIENT = """
import json, sys, threading, time, tango
from tango.utils import PyTangoThread

address, folder, threads, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
told = {"answered": 0, "refused": 0}

def ask():
    proxy = tango.DeviceProxy(address)
    proxy.set_timeout_millis(30_000)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for command, query in (
            ("GetReports", {"latest": True, "limit": 100_000}), ("ListFolder", {"folder": folder}),
        ):
            try:
                proxy.command_inout(command, json.dumps(query))
                told["answered"] += 1
            except tango.DevFailed as error:
                assert error.args[0].reason == "PETIF_Busy", error.args[0]
                assert "Call again" in error.args[0].desc
                told["refused"] += 1

asking = [PyTangoThread(target=ask) for _ in range(threads)]
for thread in asking:
    thread.start()
for thread in asking:
    thread.join()
print(json.dumps(told))
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("reports", "processes", "threads", "seconds"),
    [(3000, 2, 4, 4.0), pytest.param(100_000, 8, 25, 30.0, marks=pytest.mark.timeout(900))],
    ids=["few", "200 clients"],
)
def test_state_and_attributes_are_read_at_once_during_long_calls(
    start_server: Callable[..., LocalServer], root: Path, reports: int, processes: int, threads: int, seconds: float
) -> None:
    server = start_server(*settings("timeout=900", "backlog_limit=200000"))
    proxy = tango.DeviceProxy(server.address)
    have_reports(proxy, root, reports)
    with ExitStack() as clients:
        arguments = [server.address, str(root / "raw"), str(threads), str(seconds)]
        asking = [
            clients.enter_context(
                subprocess.Popen([sys.executable, "-c", CLIENT, *arguments], stdout=subprocess.PIPE, text=True)
            )
            for _ in range(processes)
        ]
        slowest = 0.0
        while any(client.poll() is None for client in asking):
            for ask in (proxy.state, proxy.status, lambda: proxy.read_attribute("QueueLength").value):
                begun = time.monotonic()
                ask()
                slowest = max(slowest, time.monotonic() - begun)
            time.sleep(0.02)
        told: list[dict[str, int]] = [json.loads(str(client.communicate()[0])) for client in asking]
    sys.stdout.write(f"slowest cheap call: {slowest:.3f} s; long calls: {told}\n")
    assert sum(each["answered"] for each in told) > 0, "else nothing was dear"
    assert slowest < 1.0


def have_reports(proxy: tango.DeviceProxy, root: Path, count: int) -> None:
    """Bring reports into the ledger by frames that are cancelled."""
    proxy.Pause()
    proxy.set_timeout_millis(60_000)
    for start in range(0, count, 5000):
        requests: list[dict[str, Any]] = [
            {"source": str(root / "raw" / f"{number:06d}.tif")} for number in range(start, min(start + 5000, count))
        ]
        proxy.command_inout("Submit", json.dumps({"requests": requests}))
    until(lambda: proxy.QueueLength == count, "all are accepted")
    with suppress(tango.DevFailed):  # it takes long, and is done nevertheless
        proxy.command_inout("Cancel", '{"all": true}')
    until(lambda: proxy.QueueLength == 0, "all are cancelled")
    proxy.Resume()
