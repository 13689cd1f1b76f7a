"""How many frames one server accepts, dispatches, reports and keeps, if conversions cost it nothing.

    python -m benchmarks.engine [--frames 20000] [--kept 1000000]

The executor returns at once and touches no pixel: it stands for many workers on other machines. The frames are small
files on a memory file system; their completeness is proved as ever. The last figure is with so many jobs on the ledger
already.
"""

import argparse
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import tifffile

from tango_server.jobs.executors.base import Done
from tango_server.jobs.executors.worker import Task
from tango_server.jobs.runner import JobRunner
from tango_server.jobs.startup import open_database
from tango_server.messages import FrameReport, SubmitQuery
from tango_server.settings import Settings

_FILES = 200
_BATCH = 100
_WORKERS = 128


class AtOnce:
    """Tells of each task at once that it was converted."""

    trouble = ""

    def start(self, task: Task, done: Done) -> None:
        """End the task."""
        done(
            FrameReport(
                job_id=task.job.job_id, source=str(task.job.source), output=str(task.job.output), outcome="converted",
                conversion_time=0.02, finished=time.time(), bytes_in=1, bytes_out=1,
            )
        )  # fmt: skip

    def close(self, timeout: float) -> None:
        """Nothing is running."""


def rate(runner: JobRunner, changed: threading.Event, paths: list[str], count: int) -> float:
    """Return how many frames a second go from Submit to a durable report."""
    before, began = runner.snapshot.converted, time.monotonic()
    for start in range(0, count, _BATCH):
        numbers = range(start, min(start + _BATCH, count))
        runner.intake.submit(SubmitQuery(requests=[{"source": paths[n % _FILES], "run_uid": "run"} for n in numbers]))
        while runner.snapshot.queue_length > 20 * _BATCH:
            changed.wait(1.0)
            changed.clear()
    while runner.snapshot.converted < before + count:
        changed.wait(1.0)
        changed.clear()
    return count / (time.monotonic() - began)


def main() -> None:
    """Print the two rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--kept", type=int, default=1_000_000)
    options = parser.parse_args()
    memory = Path("/dev/shm")  # a memory file system, where there is one
    folder = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None)).resolve()
    raw = folder / "data" / "raw"
    raw.mkdir(parents=True)
    paths = [str(raw / f"{number:03d}.tif") for number in range(_FILES)]
    for path in paths:
        tifffile.imwrite(path, np.zeros((16, 16), np.float32))
    settings = Settings(
        read_roots=(folder / "data",), state_dir=folder / "state", numworkers=_WORKERS, settle_time=0.0,
        sidecar_timeout=0.0, history_limit=2 * max(options.kept, options.frames), backlog_limit=100_000,
    )  # fmt: skip
    changed = threading.Event()
    runner = JobRunner(settings, open_database(settings), AtOnce(), lambda _: changed.set())
    try:
        print(f"{rate(runner, changed, paths, options.frames):.0f} frames/s with an empty ledger", flush=True)
        if options.kept > options.frames:
            filled = rate(runner, changed, paths, options.kept - options.frames)
            print(f"{filled:.0f} frames/s while it filled to {options.kept} jobs", flush=True)
            print(f"{rate(runner, changed, paths, options.frames):.0f} frames/s then", flush=True)
    finally:
        runner.close()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
