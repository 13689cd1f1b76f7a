"""A server that is killed while it combines groups: its outputs are those of a server that was not."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tango
import tifffile

from tango_server.client.local_server import LocalServer
from tango_server.recipe import Recipe
from tests.system.conftest import FAST, settings
from tests.system.waiting import all_done, submit, until, workers_of

MEMBERS = 4
SEED = 24
RUNS = 100


def requests_of(root: Path, run: str, groups: int) -> list[dict[str, Any]]:
    recipe = Recipe.model_validate({
        "combine": {"of": "event", "method": "mean"}, "output": {"template": f"{run}_{{first}}"},
    }).model_dump(mode="json")  # fmt: skip
    return [
        {
            "source": str(root / "raw" / f"f{number:03d}.tif"), "key": f"{run}/{number}", "run_uid": run,
            "stream": "primary", "seq_num": number // MEMBERS + 1, "group": f"{run}/{number // MEMBERS}",
            "member": number % MEMBERS, "members": MEMBERS, "recipe": recipe,
        }
        for number in range(groups * MEMBERS)
    ]  # fmt: skip


def write_frames(root: Path, groups: int, size: int = 128) -> None:
    chance = np.random.default_rng(SEED)
    for number in range(groups * MEMBERS):
        tifffile.imwrite(root / "raw" / f"f{number:03d}.tif", chance.integers(0, 60_000, (size, size), np.uint16))


def outputs(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((root / "processed").iterdir())}


def take_away(root: Path) -> dict[str, bytes]:
    """Return the outputs so far, and remove them."""
    found = outputs(root)
    for path in (root / "processed").iterdir():
        path.unlink()
    return found


def statistics(proxy: tango.DeviceProxy, run: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(proxy.command_inout("GetRunStatistics", run))
    return found


def killed(root: Path, state: str, run: str, groups: int, when: Callable[[LocalServer], None]) -> dict[str, Any]:
    """Combine groups with a server that is killed, and with the next one; return the statistics of the run."""
    with LocalServer(root, root / state, settings(*FAST)) as server:
        submit(tango.DeviceProxy(server.address), *requests_of(root, run, groups))
        when(server)
        workers = workers_of(server.pid)
        psutil.Process(server.pid).kill()
        psutil.wait_procs(workers, timeout=10)
    with LocalServer(root, root / state, settings(*FAST)) as server:
        proxy = tango.DeviceProxy(server.address)
        submit(proxy, *requests_of(root, run, groups))  # as a spool does that has heard no answer
        all_done(proxy)
        return statistics(proxy, run)


def test_a_killed_server_makes_the_same_bytes(root: Path) -> None:
    write_frames(root, groups=3)
    with LocalServer(root, root / "calm", settings(*FAST)) as server:
        proxy = tango.DeviceProxy(server.address)
        submit(proxy, *requests_of(root, "run", 3))
        all_done(proxy)
    expected = take_away(root)
    assert len([name for name in expected if name.endswith(".tif")]) == 3

    def one_is_written(_: LocalServer) -> None:
        until(lambda: len(list((root / "processed").glob("*.tif"))) >= 1, "a group is written")

    found = killed(root, "disturbed", "run", 3, one_is_written)
    assert outputs(root) == expected
    assert (found["submitted"], found["grouped"], found["groups"], found["pending"]) == (12, 12, 3, 0)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_hundred_killed_runs_make_the_same_bytes(root: Path) -> None:
    chance = random.Random(SEED)
    write_frames(root, groups=3)
    runs = [f"run{number}" for number in range(RUNS)]
    with LocalServer(root, root / "calm", settings(*FAST)) as server:
        proxy = tango.DeviceProxy(server.address)
        for run in runs:
            submit(proxy, *requests_of(root, run, 3))
        all_done(proxy)
    expected = take_away(root)
    wrong = []
    server = LocalServer(root, root / "disturbed", settings(*FAST))
    server.start()
    try:
        for run in runs:
            proxy = tango.DeviceProxy(server.address)
            submit(proxy, *requests_of(root, run, 3))
            psutil.Process().cpu_percent(chance.uniform(0.001, 0.3))  # waits so long
            victims = [psutil.Process(server.pid), *workers_of(server.pid)]
            for victim in victims[: 1 + chance.randrange(2)]:
                victim.kill()
            psutil.wait_procs(victims, timeout=10)
            server.stop()
            server = LocalServer(root, root / "disturbed", settings(*FAST))
            server.start()
            proxy = tango.DeviceProxy(server.address)
            all_done(proxy)
            found = statistics(proxy, run)
            if (found["grouped"], found["groups"], found["pending"], found["failed"]) != (12, 3, 0, 0):
                wrong.append(found)
    finally:
        server.stop()
    assert wrong == []
    assert outputs(root) == expected
