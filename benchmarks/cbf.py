"""How fast is a CBF frame read? Side by side with fabio, in one run.

    python -m benchmarks.cbf [--rounds 15] [--write docs/explanation/performance/cbf.csv]

Every round runs all ways one after the other, on one core, so that the machine's mood falls on all alike; the figures
are medians, and the ratios are medians of the ratios within a round. "rest" is what the conversion of the same frame
takes besides its reading: that of an int32 TIFF, less the reading of the TIFF.
"""

import argparse
import hashlib
import logging
import os
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import fabio
import numpy as np
import tifffile
from fabio.cbfimage import CbfImage

from benchmarks.results import Figure, machine, publish
from benchmarks.timing import Way, in_turns, use_memory_again
from tango_server.conversion.cbf.reader import check_cbf, open_cbf
from tango_server.conversion.convert import convert_file
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.image.buffers import Workspace
from tango_server.conversion.tiff.reader import open_tiff
from tango_server.recipe import Recipe

SIDE = 2048
MD5 = b"Content-MD5"


def frame(counts: float) -> np.ndarray[Any, Any]:
    """Return a frame as a photon-counting detector gives it: Poisson counts, gaps, and bright spots."""
    generator = np.random.default_rng(1)
    image = generator.poisson(counts, (SIDE, SIDE)).astype(np.int32)
    image[:, ::500] = -1
    image[generator.integers(0, SIDE, 20_000), generator.integers(0, SIDE, 20_000)] = 60_000
    return image


def ways_of(image: np.ndarray[Any, Any], folder: Path) -> dict[str, Way]:
    summed, unsummed, tiff = folder / "summed.cbf", folder / "unsummed.cbf", folder / "raw" / "frame.tif"
    CbfImage(data=image).write(str(summed))
    content = summed.read_bytes()
    unsummed.write_bytes(content.replace(MD5, b"X-" + MD5[2:]))
    tiff.parent.mkdir()
    tifffile.imwrite(tiff, image, photometric="minisblack")
    recipe = Recipe.preset("xdi", rotation=90)
    workspace = Workspace()

    def ours(path: Path, *, checked: bool = False) -> Way:
        proven = check_cbf(FrameLocation(path)).identity if checked else None
        location = FrameLocation(path, proven=proven)

        def read() -> None:
            with open_cbf(location, workspace) as source:
                for _ in source.read():
                    pass

        return read

    def read_tiff() -> None:
        with open_tiff(tiff, workspace) as opened:
            for _ in opened.images():
                pass

    return {
        "petif, with MD5": ours(summed),
        "petif, MD5 compared before": ours(summed, checked=True),
        "petif, without MD5": ours(unsummed),
        "fabio.open, with MD5": lambda: fabio.open(str(summed)).data,
        "fabio.open, without MD5": lambda: fabio.open(str(unsummed)).data,
        "MD5 alone": lambda: hashlib.md5(content, usedforsecurity=False).digest(),
        "conversion of a TIFF": lambda: convert_file(tiff, recipe),
        "reading of a TIFF": read_tiff,
    }


def figures(title: str, image: np.ndarray[Any, Any], rounds: int) -> list[Figure]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        times = in_turns(ways_of(image, Path(name)), rounds)
    rest = [whole - read for whole, read in zip(times.pop("conversion of a TIFF"), times.pop("reading of a TIFF"),
                                                strict=True)]  # fmt: skip
    found = [Figure(title, way, "time", median(each), "ms") for way, each in {**times, "rest": rest}.items()]
    for kind in ("with MD5", "MD5 compared before", "without MD5"):
        other = "without MD5" if kind == "without MD5" else "with MD5"
        rows = list(zip(times[f"petif, {kind}"], times[f"fabio.open, {other}"], rest, strict=True))
        found += [
            Figure(title, f"petif, {kind}", "of fabio.open", median(own / other for own, other, _ in rows)),
            Figure(
                title,
                f"petif, {kind}, and the rest",
                "of fabio.open and the rest",
                median((own + more) / (other + more) for own, other, more in rows),
            ),
        ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", type=Path, help="write the figures to this CSV file")
    arguments = parser.parse_args()
    logging.getLogger("fabio").setLevel(logging.ERROR)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    use_memory_again()
    publish(
        [
            *machine("python -m benchmarks.cbf"),
            Figure("machine", "", "fabio", fabio.version),
            *figures("30 counts in the mean", frame(30), arguments.rounds),
            *figures("2000 counts in the mean", frame(2000), arguments.rounds),
        ],
        arguments.write,
    )


if __name__ == "__main__":
    main()
