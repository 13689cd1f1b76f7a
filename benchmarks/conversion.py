"""How fast is the conversion? Side by side with a plain copy and with other ways, in one run.

    python -m benchmarks.conversion [--rounds 7] [--write docs/explanation/performance/conversion.csv]

Every round runs all ways one after the other, on one core, so that the machine's mood falls on all alike; the figures
are medians, and the ratios are medians of the ratios within a round. Input is a float32 file as QXRD writes it, the
result int32 as XDI reads it.
"""

import argparse
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import get_args

import fabio
import numpy as np
import tifffile

from benchmarks.results import Figure, machine, publish
from benchmarks.timing import seconds
from petif_bluesky.sim.pattern import Pattern
from petif_bluesky.sim.qxrd_file import write_frame
from tango_server.conversion.convert import convert_file
from tango_server.recipe import Flip, NewFile, Recipe, Rotation

SIZES = (1024, 2048, 4096)
TRANSFORMS = [(rotation, flip) for rotation in get_args(Rotation) for flip in get_args(Flip)]
HEADLINE = (90, "1")
Way = Callable[[Path, Path, Recipe], None]


def plain_copy(source: Path, folder: Path, recipe: Recipe) -> None:
    del recipe
    output = folder / "copy.tif"
    output.unlink(missing_ok=True)
    shutil.copyfile(source, output)


def petif(source: Path, folder: Path, recipe: Recipe) -> None:
    output = folder / "petif" / source.name
    output.unlink(missing_ok=True)
    convert_file(source, recipe.model_copy(update={"output": NewFile(folder=str(output.parent))}))


def turned(image: np.ndarray, recipe: Recipe) -> np.ndarray:
    rotated = np.rot90(image, recipe.rotation // 90)
    flipped = {"none": rotated, "0": np.flip(rotated, 0), "1": np.flip(rotated, 1), "both": np.flip(rotated)}
    return flipped[recipe.flip].astype(np.int32)


def fabio_and_numpy(source: Path, folder: Path, recipe: Recipe) -> None:
    output = folder / "fabio.tif"
    output.unlink(missing_ok=True)
    with fabio.open(str(source)) as image:
        fabio.tifimage.TifImage(data=turned(image.data, recipe)).write(str(output))


def tifffile_and_numpy(source: Path, folder: Path, recipe: Recipe) -> None:
    output = folder / "tifffile.tif"
    output.unlink(missing_ok=True)
    tifffile.imwrite(output, turned(tifffile.imread(source), recipe))


WAYS: dict[str, Way] = {
    "plain copy": plain_copy,
    "petif": petif,
    "fabio + numpy": fabio_and_numpy,
    "tifffile + numpy": tifffile_and_numpy,
}


def compared(source: Path, folder: Path, recipe: Recipe, rounds: int) -> dict[str, tuple[float, float]]:
    """Return for each way the median time in ms and the median ratio to the copy of the same round."""
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for number in range(rounds + 1):
        for name, way in WAYS.items():
            taken = seconds(partial(way, source, folder, recipe))
            if number:  # the first round warms the caches
                times[name].append(taken)
    copies = times["plain copy"]
    return {
        name: (1e3 * median(taken), median(one / copy for one, copy in zip(taken, copies, strict=True)))
        for name, taken in times.items()
    }


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process on one core, where the operating system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def frame(folder: Path, size: int) -> Path:
    path = folder / "raw" / f"frame-{size}.tif"
    path.parent.mkdir(exist_ok=True)
    if path.exists():
        return path
    image = Pattern(shape=(size, size), center=(0.54 * size, 0.43 * size), distance=300.0, energy=40e3).frame()
    write_frame(path, image, document_name=path.name, acquired=datetime.now())
    return path


def many(source: Path, folder: Path, count: int) -> None:
    recipe = Recipe.preset("xdi", rotation=HEADLINE[0], flip=HEADLINE[1])
    for number in range(count):
        petif(source, folder / str(os.getpid()) / str(number % 4), recipe)


def two_processes(source: Path, folder: Path, count: int = 60) -> float:
    """Return how many times faster two processes are than one, at the same number of frames."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(many, [source] * 2, [folder] * 2, [8] * 2))
        ratios = []
        for _ in range(5):
            began = time.perf_counter()
            pool.submit(many, source, folder, count).result()
            alone = time.perf_counter() - began
            began = time.perf_counter()
            list(pool.map(many, [source] * 2, [folder] * 2, [count // 2] * 2))
            ratios.append(alone / (time.perf_counter() - began))
    return median(ratios)


MEMORY = """
import re, sys
from pathlib import Path
from tango_server.conversion.convert import convert_file
from tango_server.recipe import Recipe
small, large, folder = map(Path, sys.argv[1:4])
recipe = Recipe.preset("xdi", rotation=90, flip="1")
convert_file(small, recipe, output=folder / "small.tif")
def peak():  # of this program: the resource module's figure includes that of the one which started it
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
before = peak()
convert_file(large, recipe, output=folder / "large.tif")
print((peak() - before) / large.stat().st_size)
"""


def memory_in_frames(folder: Path) -> float:
    """Return the peak memory of a conversion above that of the loaded program, in sizes of a 4096 x 4096 frame."""
    command = [sys.executable, "-c", MEMORY, str(frame(folder, 64)), str(frame(folder, 4096)), str(folder)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def refusals(source: Path) -> dict[str, str]:
    """Return what other programs say to a QXRD file."""
    return {"ImageMagick": imagemagick(source), "libvips": libvips(source)}


def imagemagick(source: Path) -> str:
    if shutil.which("identify") is None:
        return "not installed"
    finished = subprocess.run(["identify", str(source)], capture_output=True, text=True, check=False)
    message = (finished.stderr.strip().splitlines() or ["no message"])[0].replace(str(source), "FILE")
    return "reads it" if finished.returncode == 0 else f"refuses it: {message}"


def libvips(source: Path) -> str:
    try:
        import pyvips
    except ImportError:
        return "not installed"
    try:
        pyvips.Image.new_from_file(str(source)).avg()
    except pyvips.Error as error:
        return f"refuses it: {error.detail.strip().splitlines()[-1].replace(str(source), 'FILE')}"
    return "reads it"


def measure(folder: Path, where: str, rounds: int) -> list[Figure]:
    """Return what every way takes for every size and orientation on one file system."""
    figures = []
    with one_core():
        for size in SIZES:
            source = frame(folder, size)
            for rotation, flip in TRANSFORMS:
                recipe = Recipe.preset("xdi", rotation=rotation, flip=flip)
                results = compared(source, folder, recipe, rounds)
                print(where, size, rotation, flip, {name: round(ms, 1) for name, (ms, _) in results.items()},
                      file=sys.stderr)  # fmt: skip
                measurement, case = f"file to file, {size} x {size}, {where}", f"rotation {rotation}, flip {flip}"
                for way, (ms, ratio) in results.items():
                    figures.append(Figure(measurement, case, way, ms, "ms"))
                    figures.append(Figure(measurement, case, f"{way} / plain copy", ratio))
                if (rotation, flip) == HEADLINE:
                    figures += headline(results, size, where)
    return figures


def headline(results: dict[str, tuple[float, float]], size: int, where: str) -> list[Figure]:
    """Return what people ask for first."""
    (ms, _), (fabio_ms, _) = results["petif"], results["fabio + numpy"]
    measurement, case = f"summary, {where}", f"{size} x {size}, rotation {HEADLINE[0]}, flip {HEADLINE[1]}"
    return [
        Figure(measurement, case, "times as fast as fabio + numpy", fabio_ms / ms),
        Figure(measurement, case, "time per pixel", 1e6 * ms / size**2, "ns"),
        Figure(measurement, case, "one core at 15 frames/s", 1.5 * ms, "%"),
    ]


def in_memory_only(folder: Path) -> list[Figure]:
    """Return what needs to be measured once: two processes, memory, and who can't take part."""
    speedup, frames = two_processes(frame(folder, 2048), folder), memory_in_frames(folder)
    return [
        Figure("two processes", "2048 x 2048", "rate / rate of one process", speedup),
        Figure("memory", "4096 x 4096", "peak of a conversion", frames, "frames"),
        *(Figure("reads QXRD's files", name, "answer", said) for name, said in refusals(frame(folder, 1024)).items()),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", type=Path, help="write the figures to this CSV file")
    arguments = parser.parse_args()
    logging.getLogger("fabio").setLevel(logging.ERROR)
    figures = machine("python -m benchmarks.conversion")
    memory = Path("/dev/shm")
    for parent, where in ((memory, "memory file system"), (Path(tempfile.gettempdir()), "disk")):
        if not parent.exists():
            continue
        with tempfile.TemporaryDirectory(dir=parent, prefix="petif-") as name:
            figures += measure(Path(name), where, arguments.rounds)
            if parent == memory:
                figures += in_memory_only(Path(name))
    publish(figures, arguments.write)


if __name__ == "__main__":
    main()
