"""A real server that corrects frames: a dark that comes later, a mask that is replaced, a server that is killed."""

import hashlib
import json
import os
import signal
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tango
import tifffile
from click.testing import CliRunner
from numpy.typing import NDArray

from petif_bluesky.sim.qxrd_file import write_frame, write_stages
from petif_bluesky.sim.qxrd_sidecar import Sidecar, write_sidecar
from tango_server.cli import petif
from tango_server.client.local_server import LocalServer
from tango_server.recipe.corrections import DARK_FACTS
from tests.system.conftest import FAST, Server, settings
from tests.system.waiting import all_done, reports, submit, until

SHAPE = (64, 64)
DARK = np.full(SHAPE, 100, np.uint16)
MASKED = (slice(10, 12), slice(20, 30))
FRAMES = 40


def raw_frame(number: int) -> NDArray[np.uint16]:
    frame = np.arange(64 * 64, dtype=np.uint16).reshape(SHAPE) + 200
    frame[0, 0] = number
    frame[5, 5:8] = 65_535
    return frame


def write(path: Path, image: NDArray[Any]) -> Path:
    """Write a frame as QXRD does, with a sidecar."""
    write_frame(path, image, document_name=str(path), acquired=datetime.now())
    add_sidecar(path)
    return path


def add_sidecar(path: Path) -> None:
    sidecar = Sidecar(
        shape=SHAPE, pixel_type="uint16", exposure_time=0.5, acquired=datetime.now(), center=(30.0, 30.0),
        distance=300.0, energy=42e3, image_number=1,
    )  # fmt: skip
    write_sidecar(path, sidecar)


def write_mask(path: Path, rows: slice) -> str:
    """Write or replace a mask; return the hash of its bytes."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[rows, MASKED[1]] = 1
    part = path.with_suffix(".part")
    tifffile.imwrite(part, mask)
    part.replace(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def corrected(number: int, rows: slice = MASKED[0]) -> NDArray[np.int32]:
    """Return what the frame must have become, by numpy alone."""
    expected = raw_frame(number).astype(np.int32) - DARK
    expected[rows, MASKED[1]] = 0
    return expected


def request(root: Path, number: int, **corrections: Any) -> dict[str, Any]:
    given = {"dark": str(root / "dark.tif"), "mask": str(root / "mask.tif"), **corrections}
    return {
        "source": str(root / "raw" / f"{number}.tif"),
        "recipe": {"pixel_type": "int32", "corrections": given},
        "key": str(number),
        "run_uid": "run-1",
        "metadata": {DARK_FACTS: {"run_uid": "dark-run", "exposure_time": 0.5}},
    }


def test_frame_is_corrected_by_a_dark_of_its_run_that_comes_after_it(server: Server, root: Path) -> None:
    proxy = tango.DeviceProxy(server.address)
    write_mask(root / "mask.tif", MASKED[0])
    write(root / "raw" / "7.tif", raw_frame(7))
    answer = submit(proxy, request(root, 7, saturation=60_000, dark_max_age=1e-6))
    query = json.dumps({"job_ids": [answer["jobs"][0]["job_id"]]})

    def awaits_dark() -> bool:
        awaited = json.loads(proxy.GetReports(query)).get("awaited", [])
        return any(str(root / "dark.tif") in each["reason"] for each in awaited)

    until(awaits_dark, "the dark is awaited by name")
    write(root / "dark.tif", DARK)
    (report,) = reports(proxy, answer)
    assert report["outcome"] == "converted", report["reason"]
    np.testing.assert_array_equal(tifffile.imread(report["output"]), corrected(7))
    assert (report["pixels"]["masked"], report["pixels"]["overexposed"]) == (20, 3)
    assert {master["kind"]: Path(master["path"]).name for master in report["masters"]} == {
        "dark": "dark.tif", "mask": "mask.tif",
    }  # fmt: skip
    all_done(proxy)
    assert proxy.NumOverexposedFrames == 1
    (in_use,) = json.loads(proxy.CorrectionsInUse)
    assert in_use["detector"] == str(root / "raw")
    shown = CliRunner().invoke(petif, ["status", "--device", server.address]).stdout
    assert all(words in shown for words in ("dark dark.tif", "0.5 s exposure", "run dark-run", "mask mask.tif"))
    assert "dark_max_age" in shown


def test_frames_whose_dark_never_comes_fail_by_name_and_others_go_on(server: Server, root: Path) -> None:
    proxy = tango.DeviceProxy(server.address)
    write_mask(root / "mask.tif", MASKED[0])
    for number in (1, 2):
        write(root / "raw" / f"{number}.tif", raw_frame(number))
    plain = {"source": str(root / "raw" / "2.tif"), "recipe": {"pixel_type": "int32"}}
    lost, other = reports(proxy, submit(proxy, request(root, 1), plain))
    assert (lost["outcome"], other["outcome"]) == ("failed", "converted")
    assert str(root / "dark.tif") in lost["reason"]
    write(root / "dark.tif", DARK)
    assert proxy.RetryFailed() == 1
    all_done(proxy)
    np.testing.assert_array_equal(tifffile.imread(root / "processed" / "1.tif"), corrected(1))


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_killed_server_loses_no_frame_and_corrects_none_twice(root: Path) -> None:
    rows = (slice(10, 12), slice(40, 42))
    masks = {write_mask(root / "mask.tif", rows[0]): rows[0]}
    for number in range(FRAMES):
        write(root / "raw" / f"{number}.tif", raw_frame(number))
    arguments = settings(*FAST, "run_timeout=60")

    def start() -> tuple[LocalServer, tango.DeviceProxy]:
        server = LocalServer(root, root / "state", arguments).start()
        return server, tango.DeviceProxy(server.address)

    def kill(server: LocalServer) -> None:
        os.kill(server.pid, signal.SIGKILL)
        server.stop()

    server, proxy = start()
    answer = submit(proxy, *(request(root, number) for number in range(FRAMES)))
    assert not answer["refused"]
    kill(server)  # while all frames wait for their dark

    server, proxy = start()
    assert [job["job_id"] for job in submit(proxy, *(request(root, number) for number in range(FRAMES)))["jobs"]] == [
        job["job_id"] for job in answer["jobs"]
    ]
    for _ in write_stages(root / "dark.tif", DARK, document_name="dark", acquired=datetime.now()):
        assert proxy.NumProcessed == 0
    add_sidecar(root / "dark.tif")
    until(lambda: proxy.NumProcessed > 0, "frames are converted")
    kill(server)  # in the middle

    masks[write_mask(root / "mask.tif", rows[1])] = rows[1]
    server, proxy = start()
    try:
        found = reports(proxy, answer)
    finally:
        server.stop()
    assert [Path(report["source"]).name for report in found] == [f"{number}.tif" for number in range(FRAMES)]
    for number, report in enumerate(found):
        assert report["outcome"] == "converted", report["reason"]
        used = {master["kind"]: master["sha256"] for master in report["masters"]}
        assert used["dark"] == hashlib.sha256((root / "dark.tif").read_bytes()).hexdigest()
        np.testing.assert_array_equal(tifffile.imread(report["output"]), corrected(number, masks[used["mask"]]))
    names = {path.name for path in (root / "processed").iterdir() if path.suffix != ".metadata"}
    assert names == {f"{number}.tif" for number in range(FRAMES)}
