"""`petif watch` as a process of its own, beside a detector that writes as QXRD does."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile

from petif_bluesky.sim.qxrd_file import write_stages
from tests.system.waiting import until

WATCH = [sys.executable, "-c", "from tango_server.commands.watch import watch; watch(prog_name='petif watch')"]
QUICK = ["--interval", "0.1", "--workers", "1"]
SHAPE = (64, 64)


class Watching:
    """A running `petif watch --json`, and the reports that it has told."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.reports: list[dict[str, Any]] = []
        self._told = folder / f"told-{time.monotonic_ns()}.txt"
        with self._told.open("wb") as errors:
            self.process = subprocess.Popen(
                [*WATCH, "raw", "--json", "--state-dir", "state", *QUICK, *options],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def converted(self) -> list[str]:
        return [Path(report["source"]).name for report in self.reports if report["outcome"] == "converted"]

    def end(self, number: int) -> tuple[int, str]:
        """Send a signal; return the exit code and what was written to standard error."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(number)
        code = self.process.wait(30)
        self._reader.join()
        psutil.wait_procs(children, timeout=10)
        return code, self.told()

    def told(self) -> str:
        """What was written to standard error so far."""
        return self._told.read_text()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                if line.endswith("\n"):
                    self.reports.append(json.loads(line))


@pytest.fixture
def start(root: Path) -> Iterator[Callable[..., Watching]]:
    started: list[Watching] = []

    def watch(*options: str) -> Watching:
        started.append(Watching(root, *options))
        return started[-1]

    yield watch
    for watching in started:
        if watching.process.poll() is None:
            watching.end(signal.SIGTERM)


def image(number: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(number).normal(100, 50, SHAPE).astype(np.float32)


def write(root: Path, number: int) -> None:
    path = root / "raw" / f"frame-{number:05d}.tif"
    for _ in write_stages(path, image(number), document_name=path.name, acquired=datetime(2024, 5, 17)):
        pass


def assert_converted(root: Path, numbers: range) -> None:
    for number in numbers:
        output = tifffile.imread(root / "processed" / f"frame-{number:05d}.tif")
        np.testing.assert_array_equal(output, image(number).astype(np.int32))


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX's")
def test_watched_frames_are_converted_once_across_a_kill(root: Path, start: Callable[..., Watching]) -> None:
    first = start("--existing")
    for number in range(30):
        write(root, number)
    slow = write_stages(
        root / "raw" / "frame-00030.tif", image(30), document_name="slow", acquired=datetime(2024, 5, 17)
    )
    next(slow)
    until(lambda: len(first.converted) >= 10, "ten frames are converted")
    first.end(signal.SIGKILL)
    for number in range(31, 50):
        write(root, number)
    second = start("--existing")
    list(slow)
    written = {number: f"frame-{number:05d}.tif" for number in range(50)}
    until(lambda: set(first.converted + second.converted) == set(written.values()), "every frame is reported")
    assert_converted(root, range(50))
    again = {report["job_id"] for report in first.reports} & {report["job_id"] for report in second.reports}
    told = Counter(first.converted + second.converted)
    assert {name for name, count in told.items() if count > 1} <= {
        Path(report["source"]).name for report in second.reports if report["job_id"] in again
    }, "a frame that is told of twice is the same job"
    code, _ = second.end(signal.SIGINT)
    assert code == 0
    third = start("--once")
    assert third.process.wait(30) == 0
    assert third.reports == []


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="a process gets no Ctrl-C from another one on Windows")
def test_ctrl_c_ends_in_good_order_and_the_next_start_goes_on(
    root: Path, start: Callable[..., Watching], put: Callable[..., Path]
) -> None:
    put("qxrd_f32_64.tif", "old.tif")
    first = start()
    put("unfinished_half_ifd.tif", "a.tif")
    until(lambda: "watching" in first.told(), "the watch has begun")
    write(root, 1)
    until(lambda: first.converted == ["frame-00001.tif"], "the new frame is converted")
    code, told = first.end(signal.SIGINT)
    assert code == 0
    assert "1 frame converted" in told
    assert "Traceback" not in told
    write(root, 2)
    second = start()
    until(lambda: "frame-00002.tif" in second.converted, "what came meanwhile is converted")
    assert "frame-00001.tif" not in second.converted
    assert "old.tif" not in second.converted


def once(root: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [*WATCH, "raw", "--once", "--state-dir", "state", *QUICK, *options]
    return subprocess.run(command, check=False, cwd=root, capture_output=True, text=True, timeout=60)


def test_once_takes_what_is_there_and_ends(root: Path, put: Callable[..., Path]) -> None:
    put("qxrd_f32_64.tif")
    finished = once(root, "--rotation", "90")
    assert finished.returncode == 0, finished.stderr
    assert "1 frame converted" in finished.stdout
    reference = np.rot90(tifffile.imread(root / "raw" / "qxrd_f32_64.tif")).astype(np.int32)
    np.testing.assert_array_equal(tifffile.imread(root / "processed" / "qxrd_f32_64.tif"), reference)
    again = once(root, "--rotation", "180")
    assert again.returncode == 0
    assert again.stdout.startswith("0 frames converted")
    assert "Nothing new" in again.stderr
    put("qxrd_r16_64.tif", "b.tif")
    put("qxrd_r16_64.tif", "../processed/b.tif")
    failed = once(root)
    assert failed.returncode == 1
    assert "failed: " in failed.stderr
    assert "b.tif" in failed.stderr


def test_once_waits_for_every_frame_of_a_file(root: Path, put: Callable[..., Path]) -> None:
    put("made/11_edf/three_blocks.edf", "scan.edf")
    finished = once(root, "--json")
    assert finished.returncode == 0, finished.stderr
    reports = [json.loads(line) for line in finished.stdout.splitlines()]
    assert [(each["outcome"], each.get("frame")) for each in reports] == [
        ("skipped", None), ("converted", 0), ("converted", 1), ("converted", 2)
    ]  # fmt: skip
    assert "3 frames converted, 0 skipped, 0 failed, 0 pending" in finished.stderr


@pytest.mark.long
def test_output_folders_inside_of_the_watched_one_are_not_watched(root: Path, put: Callable[..., Path]) -> None:
    put("qxrd_f32_64.tif")
    shutil.copytree(root / "raw", root / "raw" / "out" / "others")
    finished = once(root, "--output-dir", "raw/out", "--template", "{stem}_xdi")
    assert finished.returncode == 0, finished.stderr
    assert "1 frame converted" in finished.stdout
    assert (root / "raw" / "out" / "qxrd_f32_64_xdi.tif").exists()


@pytest.mark.long
def test_dark_may_be_outside_of_the_watched_folder(root: Path, put: Callable[..., Path]) -> None:
    frame = put("qxrd_f32_64.tif")
    dark = np.full(SHAPE, 3, np.float32)
    (root / "masters").mkdir()
    tifffile.imwrite(root / "masters" / "dark.tif", dark)
    finished = once(root, "--dark", "masters/dark.tif", "--force-dark")
    assert finished.returncode == 0, finished.stderr
    expected = (tifffile.imread(frame) - dark).astype(np.int32)
    np.testing.assert_array_equal(tifffile.imread(root / "processed" / "qxrd_f32_64.tif"), expected)


def test_frames_are_replaced_in_place_once(root: Path, put: Callable[..., Path]) -> None:
    frame = put("qxrd_f32_64.tif")
    raw = tifffile.imread(frame)
    assert "1 frame converted" in once(root, "--in-place", "--rotation", "90").stdout
    assert "0 frames converted" in once(root, "--in-place", "--rotation", "90").stdout
    np.testing.assert_array_equal(tifffile.imread(frame), np.rot90(raw).astype(np.int32))


@pytest.mark.long
def test_invalid_call_is_reported_with_a_reason(
    root: Path, start: Callable[..., Watching], put: Callable[..., Path]
) -> None:
    missing = subprocess.run([*WATCH, "nowhere"], check=False, cwd=root, capture_output=True, text=True, timeout=60)
    assert missing.returncode == 2
    assert "'nowhere' does not exist" in missing.stderr
    impatient = once(root, "--timeout", "1")
    assert impatient.returncode == 2
    assert "must be longer than the settle time" in impatient.stderr
    put("qxrd_f32_64.tif")
    first = start("--existing")
    until(lambda: first.converted == ["qxrd_f32_64.tif"], "the first watch runs")
    second = once(root)
    assert second.returncode == 1
    assert "another process has it open" in second.stderr
    assert "Traceback" not in second.stderr
