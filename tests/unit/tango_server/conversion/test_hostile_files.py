"""Files that promise what they don't hold: a typed error within a second of CPU time and 200 MB, never a crash."""

import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

WATCHED = """
import json, re, sys, time
from pathlib import Path
from tango_server.conversion import ConversionError, convert_file
from tango_server.recipe import Recipe
recipe = Recipe.preset("xdi", rotation=90)
convert_file(sys.argv[1], recipe)
def peak():  # of this program: the resource module's figure includes that of the one which started it
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
for name in sys.argv[2:]:
    before, began = peak(), time.process_time()
    try:
        convert_file(name, recipe)
        what = "converted"
    except ConversionError as error:
        what = type(error).__name__
        assert name in str(error), error
    print(json.dumps([name, what, time.process_time() - began, peak() - before]))
"""
HUGE = (2**16 - 1, 2**24, 2**31 - 1, 2**32 - 1)


def entries_of(content: bytearray) -> Iterator[tuple[int, int]]:
    """Yield tag and place of each entry of the first directory of a little-endian classic TIFF."""
    start = struct.unpack_from("<I", content, 4)[0]
    for number in range(struct.unpack_from("<H", content, start)[0]):
        place = start + 2 + 12 * number
        yield struct.unpack_from("<H", content, place)[0], place


def hostile(folder: Path) -> Iterator[Path]:
    """Write files with one entry of their directory blown up: its count, its value, or its type."""
    options: dict[str, dict[str, Any]] = {
        "plain": {},
        "lzw": {"compression": "lzw"},
        "deflate": {"compression": "deflate", "predictor": 2},
        "zstd": {"compression": "zstd"},
        "packbits": {"compression": "packbits"},
        "tiles": {"tile": (16, 16), "compression": "deflate"},
    }
    image = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)
    for kind, chosen in options.items():
        model = folder / f"{kind}.tif"
        tifffile.imwrite(model, image, metadata=None, photometric="minisblack", **chosen)
        content = bytearray(model.read_bytes())
        for tag, place in entries_of(content):
            changes = [(what, offset, "<I", value) for value in HUGE for what, offset in (("count", 4), ("value", 8))]
            changes += [("type", 2, "<H", field_type) for field_type in (0, 1, 5, 12, 16, 255)]
            for what, offset, code, value in changes:
                broken = bytearray(content)
                struct.pack_into(code, broken, place + offset, value)
                path = folder / f"{kind}-{tag}-{what}-{value}.tif"
                path.write_bytes(broken)
                yield path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak memory of a program here")
def test_no_promise_costs_time_or_memory(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    files = [str(path) for path in hostile(folder)]
    good = folder / "good.tif"
    tifffile.imwrite(good, np.zeros((64, 64), np.uint16), compression="zstd")
    finished = subprocess.run(
        [sys.executable, "-c", WATCHED, str(good), *files], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    results = [json.loads(line) for line in finished.stdout.splitlines()]
    assert [result[0] for result in results] == files
    refused = [result for result in results if result[1] != "converted"]
    assert len(refused) > len(files) / 2
    for name, what, seconds, megabytes in results:
        assert seconds < 1, (name, what, seconds)
        assert megabytes < 200, (name, what, megabytes)
    assert not list(tmp_path.rglob("*.petif-tmp"))
