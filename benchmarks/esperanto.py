"""How fast are ESPERANTO frames written and read? Side by side with fabio, in one run.

    python -m benchmarks.esperanto [--rounds 7] [--write docs/explanation/performance/esperanto.csv]

Every round runs all ways one after the other, so that the machine's mood falls on all alike; the figures are medians,
and the ratios are medians of the ratios within a round. The frames are those of the simulated flat panel.
"""

import argparse
import logging
import os
import tempfile
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import fabio
import numpy as np
from fabio.compression import agi_bitfield

from benchmarks.results import Figure, machine, publish
from benchmarks.timing import Way, in_turns
from petif_bluesky.sim.pattern import Pattern
from petif_bluesky.sim.qxrd_file import write_frame
from tango_server.conversion.convert import convert_file
from tango_server.conversion.esperanto.codec import decode, encode
from tango_server.conversion.esperanto.header import Angles, EsperantoHeader
from tango_server.recipe import Recipe
from tango_server.recipe.esperanto import Encoding

SIDE = 2048
GEOMETRY: dict[str, Any] = {
    "wavelength": 0.29,
    "distance": 300.0,
    "pixel_size": 0.2,
    "beam_center": (1000.0, 900.0),
    "exposure": 0.1,
}


def recipe(encoding: Encoding) -> Recipe:
    return Recipe.preset("esperanto", esperanto={"omega": 1.5, "encoding": encoding, **GEOMETRY})


def ways_of(image: np.ndarray, folder: Path) -> dict[str, Way]:
    source = folder / "raw" / "frame-00001.tif"
    source.parent.mkdir()
    write_frame(source, image, document_name="frame", acquired=datetime.now())
    pixels = np.ascontiguousarray(np.rot90(image, 2).astype(np.int32))
    encoded = encode(pixels)
    header = EsperantoHeader(
        side=SIDE, encoding="AGI_BITFIELD", start=Angles(1.5), end=Angles(1.5), origin=(1000.0, 900.0),
        **{name: value for name, value in GEOMETRY.items() if name != "beam_center"},
    )  # fmt: skip

    def written() -> None:
        (folder / "by-petif").write_bytes(header.to_bytes() + encode(pixels))

    def written_by_fabio() -> None:
        fabio.esperantoimage.EsperantoImage(data=pixels).write(str(folder / "written-by-fabio"))

    def converted(encoding: Encoding) -> Way:
        output = folder / f"{encoding}.esperanto"

        def convert() -> None:
            output.unlink(missing_ok=True)
            convert_file(source, recipe(encoding), output=output)

        return convert

    def by_eiger2crysalis() -> None:
        with fabio.open(str(source)) as raw:
            turned = np.rot90(fabio.esperantoimage.EsperantoImage(data=raw.data.astype(np.int32)).data, 2)
            fabio.esperantoimage.EsperantoImage(data=np.ascontiguousarray(turned)).write(str(folder / "by-fabio"))

    return {
        "write, petif": written,
        "write, fabio": written_by_fabio,
        "decode, petif": lambda: decode(encoded, pixels.shape),
        "decode, fabio": lambda: agi_bitfield.decompress(encoded, pixels.shape),
        "file to file, petif, AGI_BITFIELD": converted("AGI_BITFIELD"),
        "file to file, petif, 4BYTE_LONG": converted("4BYTE_LONG"),
        "file to file, fabio and numpy, AGI_BITFIELD": by_eiger2crysalis,
    }


def figures(title: str, image: np.ndarray, rounds: int) -> list[Figure]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        times = in_turns(ways_of(image, Path(name)), rounds)
    compared = {"write": "write, petif", "decode": "decode, petif", "file": "file to file, petif, AGI_BITFIELD"}
    found = []
    for name, each in times.items():
        own = times[compared[name.split()[0].rstrip(",")]]
        ratio = median(one / other for one, other in zip(each, own, strict=True))
        found += [Figure(title, name, "time", median(each), "ms"), Figure(title, name, "ratio to petif", ratio)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", type=Path, help="write the figures to this CSV file")
    arguments = parser.parse_args()
    logging.getLogger("fabio").setLevel(logging.ERROR)  # it warns of QXRD's missing tag each time
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pattern = Pattern(shape=(SIDE, SIDE), center=(1100.0, 880.0), distance=500.0, energy=42_700.0)
    weak = np.random.default_rng(1).normal(0, 3, (SIDE, SIDE)).astype(np.float32)
    measured = [
        *machine("python -m benchmarks.esperanto"),
        Figure("machine", "", "fabio", fabio.version),
        *figures("powder rings of up to 3000 counts", pattern.frame(), arguments.rounds),
        *figures("weak scatterer, dark subtracted, noise of 3 counts", weak, arguments.rounds),
    ]
    publish(measured, arguments.write)


if __name__ == "__main__":
    main()
