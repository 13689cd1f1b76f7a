"""What does it cost to combine ten frames? Beside the plain ways to the same result, in one run.

    python -m benchmarks.combining [--rounds 11] [--write docs/explanation/performance/combining.csv]

In a memory file system, 2048 x 2048, on one core; each round runs both ways one after the other. The goals: a sum takes
1.5 times the plain read of the same files and one conversion; a median 0.2 of numpy's over the same arrays, and a
sigma-clipped mean 0.5 of pyFAI's, both from files to output here. Last the peak memory of one process.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from benchmarks.conversion import one_core
from benchmarks.results import Figure, machine, publish, rows
from benchmarks.timing import seconds
from petif_bluesky.sim.qxrd_file import write_frame
from tango_server.conversion.combining.group import Member, convert_group
from tango_server.conversion.convert import convert_file
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.recipe import Recipe
from tango_server.recipe.combine import Method

SIZE, COUNT = 2048, 10
SIGMA = 3.0
GOALS = {"sum": 1.5, "median": 0.2, "sigma_clip": 0.5}
"""Of the time of the plain way."""
_QXRD_HEADER = 8  # bytes


def frames(folder: Path, kind: str) -> list[Path]:
    """Write ten frames of QXRD: noise, and in each another bright row."""
    now, random, paths = datetime.now().astimezone(), np.random.default_rng(2), []
    for number in range(COUNT):
        image = random.normal(5000, 50, (SIZE, SIZE))
        image[number::50] *= 4
        paths.append(folder / f"{kind}-{number:05d}.tif")
        write_frame(paths[-1], image.astype(kind), document_name=paths[-1].name, acquired=now)
    return paths


def recipe(folder: Path, method: Method | None, **changes: object) -> Recipe:
    combine = None if method is None else {"of": "run", "method": method, "sigma": SIGMA}
    return Recipe.model_validate({"output": {"folder": str(folder / "out")}, "combine": combine, **changes})


def combine(paths: Sequence[Path], made: Recipe) -> None:
    convert_group([Member(FrameLocation(path)) for path in paths], made)


def plain_sum(paths: Sequence[Path], kind: str, made: Recipe) -> None:
    """Read all files into one array after the other, and convert one file."""
    for path in paths:
        np.fromfile(path, kind, SIZE * SIZE, offset=_QXRD_HEADER)
    convert_file(paths[0], made)


def clipped_by_pyfai(images: Sequence[NDArray[np.float32]]) -> None:
    from pyFAI.average import average_dark

    average_dark(list(images), center_method="median", cutoff=SIGMA)


def compared(case: str, own: Callable[[], None], plain: Callable[[], object], rounds: int) -> list[Figure]:
    """Return the medians of both ways, and of their ratio within a round."""
    times: list[tuple[float, float]] = []
    with one_core():
        for number in range(rounds + 1):
            pair = seconds(own), seconds(plain)
            if number:
                times.append(pair)
    figures = {"combined": 1e3 * median(one for one, _ in times), "plain": 1e3 * median(other for _, other in times)}
    ratio = median(one / other for one, other in times)
    return [*rows("ten frames combined", case, "ms", figures), Figure("ten frames combined", case, "ratio", ratio)]


def sums(folder: Path, kind: str, paths: Sequence[Path], rounds: int) -> list[Figure]:
    figures = []
    for rotation in (0, 90):
        turned = {"pixel_type": "int32", "rotation": rotation}
        own = partial(combine, paths, recipe(folder, "sum", **turned))
        plain = partial(plain_sum, paths, kind, recipe(folder, None, **turned))
        figures += compared(f"sum, {kind}, rotated by {rotation}", own, plain, rounds)
    return figures


def others(folder: Path, kind: str, paths: Sequence[Path], rounds: int) -> list[Figure]:
    images = [np.fromfile(path, kind, SIZE * SIZE, offset=_QXRD_HEADER).reshape(SIZE, SIZE) for path in paths]
    stack = np.stack(images)
    ways: dict[Method, Callable[[], object]] = {
        "median": lambda: np.median(stack, axis=0),
        "sigma_clip": partial(clipped_by_pyfai, images),
    }
    figures = []
    for method, plain in ways.items():
        own = partial(combine, paths, recipe(folder, method))
        figures += compared(f"{method}, {kind}", own, plain, rounds)
    return figures


MEMORY = """
import re, sys
from pathlib import Path
from benchmarks.combining import combine
from tango_server.conversion.convert import convert_file
from tango_server.recipe import Recipe
plain, made, *sources = sys.argv[1:]
def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
convert_file(sources[0], Recipe.model_validate_json(plain))
before = peak()
combine([Path(each) for each in sources], Recipe.model_validate_json(made))
print(peak() - before)
"""


def memory(folder: Path, paths: Sequence[Path]) -> list[Figure]:
    """Return the peak memory that combining adds to that of a conversion, in sizes of a float64 frame."""
    added = {}
    for method in ("sum", "mean", "max", "median", "sigma_clip"):
        texts = [recipe(folder, each).model_dump_json() for each in (None, method)]  # type: ignore[arg-type]
        command = [sys.executable, "-c", MEMORY, *texts, *map(str, paths)]
        finished = subprocess.run(command, capture_output=True, text=True, check=True)
        added[method] = int(finished.stdout) / (8 * SIZE**2)
    return rows("memory of combining ten float32 frames", "more than a conversion", "float64 frames", added)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--write", type=Path, help="write the figures to this CSV file")
    arguments = parser.parse_args()
    figures = machine("python -m benchmarks.combining")
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="petif-") as name:
        folder = Path(name)
        for kind in ("float32", "uint16"):
            paths = frames(folder, kind)
            figures += sums(folder, kind, paths, arguments.rounds)
            figures += others(folder, kind, paths, max(arguments.rounds // 4, 1))
            if kind == "float32":
                figures += memory(folder, paths)
            for path in paths:
                path.unlink()
    publish(figures, arguments.write)


if __name__ == "__main__":
    main()
