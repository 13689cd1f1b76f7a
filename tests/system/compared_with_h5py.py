"""Compare converted frames with what h5py reads from their files: `python -m tests.system.compared_with_h5py LIST`.

A process of its own, since h5py may crash or hang on a damaged file. LIST has one JSON object in a line: `source`,
`frame`, `output`, `masked`. For each a line is printed before it is read, and another one with the verdict.
"""

import json
import sys
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - registers the filters
import numpy as np
import tifffile

DATA_SET = "/entry/data/data"


def verdict(source: str, frame: int, output: str, masked: int) -> str:
    """Return "equal", or what differs or could not be read."""
    try:
        with h5py.File(source, "r", locking=False) as file:
            image = file[DATA_SET][frame]
    except Exception as error:  # noqa: BLE001 - whatever h5py says of a damaged file
        return f"h5py: {type(error).__name__}: {error}"
    found = tifffile.imread(output)
    if found.dtype != image.dtype.newbyteorder("=") or found.shape != image.shape:
        return f"differs: {found.dtype} {found.shape}, h5py {image.dtype} {image.shape}"
    with np.errstate(invalid="ignore"):
        other = ~((found == image) | ((found != found) & (image != image)))  # noqa: PLR0124 - NaN
    if np.count_nonzero(other) > masked or np.any(found[other]):
        return f"differs in {np.count_nonzero(other)} pixels, {masked} are masked"
    return "equal"


if __name__ == "__main__":
    for line in Path(sys.argv[1]).read_text().splitlines():
        print(line, flush=True)  # noqa: T201
        print(json.dumps(verdict(**json.loads(line))), flush=True)  # noqa: T201
