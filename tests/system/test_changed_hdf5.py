"""HDF5 files with changed bytes through a running server: it lives, and never gives pixels that h5py does not read."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
import tango

from tests.system.compared_with_h5py import DATA_SET
from tests.system.conftest import Server, settings

FRAMES, SHAPE = 3, (16, 24)
PATIENCE = 900.0


def bases(folder: Path) -> list[bytes]:
    """Return the bytes of good files: chunked in three ways, contiguous, with a mask, and a virtual one."""
    stack = np.arange(FRAMES * SHAPE[0] * SHAPE[1], dtype=np.uint16).reshape(FRAMES, *SHAPE)
    layouts: list[dict[str, Any]] = [
        {"chunks": (1, *SHAPE), **hdf5plugin.Bitshuffle(cname="lz4")},
        {"chunks": (2, 8, 8), "compression": "gzip", "shuffle": True},
        {"chunks": (1, *SHAPE)},
        {},
    ]
    made = []
    for number, layout in enumerate(layouts):
        path = folder / f"base{number}.h5"
        with h5py.File(path, "w", libver="latest" if number % 2 else "earliest") as file:
            file.create_dataset(DATA_SET, data=stack, **layout)
            file["entry/data"].attrs["signal"] = "data"
            mask = np.zeros(SHAPE, np.uint32)
            mask[3, :5] = 1
            file["entry/instrument/detector/pixel_mask"] = mask
            file["entry/instrument/detector/count_time"] = 0.5
        made.append(path.read_bytes())
    return made


def write_changed(folder: Path, number: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    good = bases(folder.parent)
    for index in range(number):
        content = bytearray(good[index % len(good)])
        for place in random.integers(0, len(content), random.integers(1, 5)):
            content[place] = random.integers(0, 256)
        (folder / f"changed_{index:04d}.h5").write_bytes(content)


def verdicts(folder: Path, frames: list[dict[str, Any]]) -> Iterator[str]:
    """Yield what differs from h5py; where h5py itself crashes or hangs there is nothing to compare."""
    waiting = [json.dumps(frame) for frame in frames]
    while waiting:
        (folder / "list").write_text("\n".join(waiting))
        command = [sys.executable, "-m", "tests.system.compared_with_h5py", str(folder / "list")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
            try:
                printed = reader.communicate(timeout=60 + len(waiting))[0].splitlines()
            except subprocess.TimeoutExpired:
                reader.kill()
                printed = reader.communicate()[0].splitlines()
        for line, verdict in zip(printed[::2], printed[1::2], strict=False):
            if "differs" in verdict:
                yield f"{line}: {verdict}"
        waiting = waiting[(len(printed) + 1) // 2 :]


@pytest.mark.parametrize("files", [30, pytest.param(1000, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
def test_changed_bytes_cost_only_their_file(root: Path, start_server: Callable[..., Server], files: int) -> None:
    write_changed(root / "raw", files, seed=files)
    good = root / "raw" / "good.h5"
    good.write_bytes(bases(root)[0])
    server = start_server(*settings("timeout=1.0", "time_limit=10", "numworkers=2"))
    proxy = tango.DeviceProxy(server.address)
    proxy.set_timeout_millis(30_000)
    recipe = {"output": {"folder": str(root / "out")}}
    proxy.command_inout("SetRecipe", json.dumps(recipe))
    names = [str(path) for path in sorted((root / "raw").iterdir())]
    proxy.command_inout("AddFiles", names)
    idle(proxy)
    proxy.command_inout("AddFiles", [str(good)])
    idle(proxy)
    found = json.loads(proxy.command_inout("GetReports", json.dumps({"latest": True, "limit": 20 * files})))["reports"]
    converted = [report for report in found if report["outcome"] == "converted"]
    assert sum(report["source"] == str(good) for report in converted) == 2 * FRAMES
    assert len(converted) > files
    assert {report["source"] for report in found} == set(names)
    assert not [report for report in found if "internal error" in report["reason"]]
    frames = [
        {"source": each["source"], "frame": each["frame"], "output": each["output"],
         "masked": each["pixels"].get("masked", 0)}
        for each in converted
    ]  # fmt: skip
    assert not list(verdicts(root, frames))


def idle(proxy: tango.DeviceProxy) -> None:
    """Wait until the queue is empty; a thousand files, of which some crash or hang their reader, take a while."""
    deadline = time.monotonic() + PATIENCE
    while proxy.read_attribute("QueueLength").value:
        assert time.monotonic() < deadline, "the queue is not empty yet"
        time.sleep(0.1)
