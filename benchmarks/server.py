"""How fast the server is, and how much memory it takes.

    python -m benchmarks.server [--short] [--only SECTION]... [--write docs/explanation/performance/server.csv]

Real servers on this machine, with real worker processes and clients. The ledger lies on the disk, frames are rotated
by 90 degrees and flipped left-right. For a ratio both sides took turns in one run.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks import server_latency, server_load, server_throughput
from benchmarks.results import Figure, machine, publish
from benchmarks.server_rig import DISK_FOLDER, MEMORY_FOLDER


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    jobs: int = 10_000
    queued: tuple[int, ...] = (1_000, 10_000, 100_000)
    frames: int = 200
    rounds: int = 5
    disk_rounds: int = 2
    shots: int = 100
    missing: int = 1_000
    good: int = 50


SHORT = Sizes(jobs=1_000, queued=(1_000, 5_000), frames=40, rounds=3, disk_rounds=2, shots=20, good=20)
Section = Callable[[Sizes], list[Figure]]


def small_frames(sizes: Sizes) -> list[Figure]:
    return [figure for sidecars in (True, False) for figure in server_load.under_load(sizes.jobs, sidecars=sidecars)]


def long_queue(sizes: Sizes) -> list[Figure]:
    return server_load.long_queue(sizes.queued)


def full_frames(sizes: Sizes) -> list[Figure]:
    places = ((*PLACES[0], sizes.rounds), (*PLACES[1], sizes.disk_rounds))
    return [
        figure
        for parent, where, rounds in places
        for figure in server_throughput.throughput(parent, where, sizes.frames, rounds)
    ]


def single_frames(sizes: Sizes) -> list[Figure]:
    return [figure for parent, where in PLACES for figure in server_latency.single_frames(parent, where, sizes.shots)]


def missing_files(sizes: Sizes) -> list[Figure]:
    return server_latency.behind_missing_files(PLACES[0][0], sizes.missing, sizes.good)


PLACES = [(MEMORY_FOLDER, "memory file system"), (DISK_FOLDER, "disk")]
SECTIONS: dict[str, Section] = {
    "single": single_frames,
    "missing": missing_files,
    "full": full_frames,
    "small": small_frames,
    "queue": long_queue,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a fraction of everything, in under a minute")
    parser.add_argument("--only", action="append", choices=list(SECTIONS), help="this section (repeatable)")
    parser.add_argument("--write", type=Path, help="write the figures to this CSV file")
    arguments = parser.parse_args()
    sizes, console = SHORT if arguments.short else Sizes(), Console(stderr=True)
    figures = machine(f"python -m benchmarks.server{' --short' if arguments.short else ''}")
    for name in arguments.only or SECTIONS:
        began = time.perf_counter()
        with console.status(f"measuring: {name}"):
            figures += SECTIONS[name](sizes)
        console.print(f"{name}: {time.perf_counter() - began:.0f} s")
    publish(figures, arguments.write)


if __name__ == "__main__":
    main()
