"""Convert files in place in a child process and kill it at a random instant, once for each file.

Usage: kill_in_place.py FOLDER SEED. One forked child a file: forking is safe here, since this process has one thread.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import cv2

from tango_server.conversion.convert import convert_file
from tango_server.recipe import Recipe

RECIPE = Recipe.preset("xdi", rotation=90, flip="1", output={"mode": "in_place"})


def main(folder: Path, seed: int) -> None:
    cv2.setNumThreads(1)
    generator = random.Random(seed)
    files = sorted(folder.glob("*.tif"))
    rehearsal = folder / "rehearsal.tif"
    rehearsal.write_bytes(files[0].read_bytes())
    began = time.perf_counter()
    convert_file(rehearsal, RECIPE)
    usual = time.perf_counter() - began
    rehearsal.unlink()
    for path in files:
        child = os.fork()
        if child == 0:
            convert_file(path, RECIPE)
            os._exit(0)
        time.sleep(generator.uniform(0, 1.3 * usual))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
