"""How fast are frames read from HDF5 files? Side by side with h5py that opens the file for each frame, in one run.

    python -m benchmarks.hdf5 [--rounds 3] [--write docs/explanation/performance/hdf5.csv]

In a memory file system, 2048 x 2048, on one core, memory used again. Each round reads all frames in all ways, one frame
after the other and the ways in turn. Ours includes the proof that the frame is complete. The goals: a bitshuffle-LZ4
frame in 0.7 of h5py's time, and ten frames a chunk in 1.5 times one frame a chunk.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import hdf5plugin
import numpy as np

from benchmarks.conversion import one_core
from benchmarks.results import Figure, machine, publish
from benchmarks.timing import use_memory_again
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import Roots
from tango_server.conversion.hdf5.frames import check_hdf5, open_hdf5
from tango_server.conversion.hdf5.open_files import keep_open
from tango_server.conversion.image.buffers import Workspace

SIDE, FRAMES = 2048, 20
GOAL, CHUNK_GOAL = 0.7, 1.5
_DATA = "/entry/data/data"
_FILTERS: dict[str, dict[str, Any]] = {
    "bitshuffle-LZ4": dict(hdf5plugin.Bitshuffle()),
    "gzip": {"compression": "gzip", "compression_opts": 1},
    "no filter": {},
}


def written(path: Path, filters: dict[str, Any], frames_a_chunk: int, pixel_type: str) -> Path:
    """Write a stack of weak scattering with Bragg peaks."""
    random = np.random.default_rng(1)
    with h5py.File(path, "w", libver="latest") as file:
        chunks = (frames_a_chunk, SIDE, SIDE)
        stack = file.create_dataset(_DATA, (FRAMES, SIDE, SIDE), pixel_type, chunks=chunks, **filters)
        for first in range(0, FRAMES, frames_a_chunk):
            images = random.poisson(1.5, (frames_a_chunk, SIDE, SIDE)).astype(pixel_type)
            images[:, ::97, ::89] = 20_000
            stack[first : first + frames_a_chunk] = images
    return path


def by_petif(path: Path) -> Callable[[int], None]:
    workspace, roots = Workspace(), Roots.of([path.parent])

    def read(index: int) -> None:
        location = FrameLocation(path, "", index)
        check_hdf5(location, roots)
        with open_hdf5(location, workspace, roots) as source:
            next(source.read())

    return read


def by_h5py(path: Path) -> Callable[[int], None]:
    """Read a copy, since HDF5 shares what it has of an open file with another handle."""
    copy = path.with_suffix(".copy.h5")
    shutil.copyfile(path, copy)

    def read(index: int) -> None:
        with h5py.File(copy, "r", locking=False) as file:
            _ = file[_DATA][index]

    return read


def measured(ways: dict[str, Callable[[int], None]], rounds: int) -> dict[str, list[float]]:
    """Return the times of all frames in ms; the first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for index in range(FRAMES):
            for name, way in ways.items():
                begun = time.perf_counter()
                way(index)
                if number:
                    times[name].append(1e3 * (time.perf_counter() - begun))
    return times


def figures(folder: Path, rounds: int, filters_of: Sequence[str]) -> list[Figure]:
    found: list[Figure] = []
    for filter_name in filters_of:
        filters = _FILTERS[filter_name]
        for pixel_type in ("uint16", "uint32"):
            case = f"{filter_name}, {pixel_type}"
            one = written(folder / f"{case} 1.h5", filters, 1, pixel_type)
            ten = written(folder / f"{case} 10.h5", filters, 10, pixel_type)
            ways = {
                "one frame a chunk": by_petif(one),
                "one frame a chunk, h5py opening each time": by_h5py(one),
                "ten frames a chunk": by_petif(ten),
            }
            times = measured(ways, rounds)
            for path in folder.iterdir():
                path.unlink()
            found += [Figure("frame read", case, name, median(each), "ms") for name, each in times.items()]
            pairs = zip(times["one frame a chunk"], times["one frame a chunk, h5py opening each time"], strict=True)
            ratio = median(ours / theirs for ours, theirs in pairs)
            # The first frame of a chunk decodes all ten: means, not medians.
            of_chunk = sum(times["ten frames a chunk"]) / sum(times["one frame a chunk"])
            found.append(Figure("frame read", case, f"petif / h5py (goal {GOAL})", ratio))
            found.append(Figure("frame read", case, f"ten / one frame a chunk (goal {CHUNK_GOAL})", of_chunk))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--filters", nargs="*", choices=tuple(_FILTERS))
    parser.add_argument("--write", type=Path, help="write the figures to this CSV file")
    arguments = parser.parse_args()
    keep_open()
    use_memory_again()
    found = machine("python -m benchmarks.hdf5")
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory, prefix="petif-") as name, one_core():
        found += figures(Path(name), arguments.rounds, arguments.filters or tuple(_FILTERS))
    publish(found, arguments.write)


if __name__ == "__main__":
    main()
