"""A stack of full frames in one HDF5 file: a server with two workers beside one with one worker, in one run.

    python -m benchmarks.server_stack [--frames 200] [--rounds 3] [--write docs/explanation/performance/stack.csv]

In a memory file system; both servers run all the time and take the same stack in turn. The goals: two workers at least
1.6 times as fast as one, and memory of the server's own process that does not depend on the number of frames.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import h5py
import hdf5plugin
import numpy as np

from benchmarks.results import Figure, machine, publish
from benchmarks.server_rig import MEMORY_FOLDER, Rig, memory, rig

SIDE = 2048
GOAL = 1.6


def stack(path: Path, frames: int) -> Path:
    """Write weak scattering with Bragg peaks, as an Eiger does."""
    random = np.random.default_rng(1)
    images = random.poisson(1.5, (4, SIDE, SIDE)).astype(np.uint32)
    images[:, ::97, ::89] = 20_000
    with h5py.File(path, "w", libver="latest") as file:
        data = file.create_dataset(
            "entry/data/data", (frames, SIDE, SIDE), np.uint32, chunks=(1, SIDE, SIDE), **hdf5plugin.Bitshuffle()
        )
        for index in range(frames):
            data[index] = images[index % len(images)]
    return path


def rate(server: Rig, path: Path, frames: int) -> float:
    """Return frames/s from submitting the file until the last frame has its report; outputs are replaced."""
    begun = time.perf_counter()
    server.submit([path])
    server.wait_until_done()
    return frames / (time.perf_counter() - begun)


def figures(frames: int, rounds: int) -> list[Figure]:
    parent = MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else Path(tempfile.gettempdir())
    case = f"{frames} frames"
    with rig(parent, numworkers=1) as one, rig(parent, numworkers=2) as two:
        places = {server: stack(server.raw / "run.h5", frames) for server in (one, two)}
        few = stack(two.raw / "few.h5", 10)
        rate(two, few, 10)
        before = memory(two.server).server
        for server, path in places.items():  # makes what is then replaced
            rate(server, path, frames)
        after = memory(two.server).server
        rates = [(rate(one, places[one], frames), rate(two, places[two], frames)) for _ in range(rounds)]
    return [
        Figure("stack", case, "one worker", median(single for single, _ in rates), "frames/s"),
        Figure("stack", case, "two workers", median(double for _, double in rates), "frames/s"),
        Figure("stack", case, f"two / one (goal {GOAL})", median(double / single for single, double in rates)),
        Figure("stack", "10 frames", "memory of the server", before, "MB"),
        Figure("stack", case, "memory of the server", after, "MB"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path, help="write the figures to this CSV file")
    arguments = parser.parse_args()
    found = machine("python -m benchmarks.server_stack")
    publish([*found, *figures(arguments.frames, arguments.rounds)], arguments.write)


if __name__ == "__main__":
    main()
