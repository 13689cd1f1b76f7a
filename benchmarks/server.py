"""How fast is the server, and what does it take? One command makes the whole page.

    python -m benchmarks.server [--short] [--only SECTION]... [--write docs/explanation/server-speed.md]

Real servers on this machine, with real worker processes and clients. Where a ratio is told, both sides took turns in
one run.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil
from rich.console import Console

from benchmarks import server_latency, server_load, server_throughput
from benchmarks.server_rig import DISK_FOLDER, MEMORY_FOLDER, WORKERS


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
Section = Callable[[Sizes], list[str]]


def small_frames(sizes: Sizes) -> list[str]:
    lines = [
        "## Many small frames",
        "",
        f"{sizes.jobs} frames of 64 x 64 through Submit, {server_load.BATCH} a call, {WORKERS} workers. Meanwhile a",
        "second client calls one command after the other; the run that it asks for is that of all these frames.",
        "",
    ]
    for sidecars in (True, False):
        lines += server_load.under_load(sizes.jobs, sidecars=sidecars)
    return lines


def long_queue(sizes: Sizes) -> list[str]:
    return ["## A long queue", "", *server_load.long_queue(sizes.queued)]


def full_frames(sizes: Sizes) -> list[str]:
    lines = ["## Full frames", "", *server_throughput.heading(sizes.frames)]
    for parent, where, rounds in ((*PLACES[0], sizes.rounds), (*PLACES[1], sizes.disk_rounds)):
        lines += server_throughput.throughput(parent, where, sizes.frames, rounds)
    return [*lines, ""]


def single_frames(sizes: Sizes) -> list[str]:
    lines = ["## Single frames", "", *server_latency.heading(sizes.shots)]
    for parent, where in PLACES:
        lines += server_latency.single_frames(parent, where, sizes.shots)
    return [*lines, ""]


def missing_files(sizes: Sizes) -> list[str]:
    return [
        "## Behind missing files",
        "",
        *server_latency.behind_missing_files(PLACES[0][0], sizes.missing, sizes.good),
    ]


PLACES = [(MEMORY_FOLDER, "memory file system"), (DISK_FOLDER, "disk")]
SECTIONS: dict[str, Section] = {
    "single": single_frames,
    "missing": missing_files,
    "full": full_frames,
    "small": small_frames,
    "queue": long_queue,
}


def title(arguments: str) -> list[str]:
    return [
        "# Speed of the server",
        "",
        f"Made by `python -m benchmarks.server{arguments}`; not edited by hand.",
        "The server's ledger lies on the disk, every frame is turned by 90 degrees and flipped left-right. MB: 10^6 B.",
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}, {datetime.now():%Y-%m-%d};",
        f"load of the machine before: {psutil.getloadavg()[0]:.1f}.",
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a fraction of everything, in under a minute")
    parser.add_argument("--only", action="append", choices=list(SECTIONS), help="this section (repeatable)")
    parser.add_argument("--write", type=Path, help="write the page to this Markdown file")
    arguments = parser.parse_args()
    sizes, console = SHORT if arguments.short else Sizes(), Console(stderr=True)
    lines = title(" --short" if arguments.short else f" --write {arguments.write}" if arguments.write else "")
    for name in arguments.only or SECTIONS:
        began = time.perf_counter()
        with console.status(f"measuring: {name}"):
            lines += SECTIONS[name](sizes)
        console.print(f"{name}: {time.perf_counter() - began:.0f} s")
    text = "\n".join(lines)
    print(text)
    if arguments.write:
        arguments.write.parent.mkdir(parents=True, exist_ok=True)
        arguments.write.write_text(text)


if __name__ == "__main__":
    main()
