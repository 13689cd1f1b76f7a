"""Write an average, and a mask of its hot pixels, as TIFF files with their provenance.

`ImageDescription` has the keys of a converted frame (see `provenance`), with a recipe that changes nothing, so
that the file is known as a master in the geometry of the raw frames. `average` has the method, the number of frames,
the names of the first and the last file and a hash of all their paths; of a mask also `hot_pixels_above`, in sigma.
"""

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from tango_server.conversion.averaging import Average
from tango_server.conversion.errors import OutputExistsError, SourceError, SourceMissingError
from tango_server.conversion.files.atomic_write import Attempt, publish, write_parts
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.image.pixels import Image
from tango_server.conversion.provenance import describe, software, tiff_time
from tango_server.conversion.sidecar import ENCODING, Sidecar, read_sidecar, sidecar_path
from tango_server.conversion.tiff.parser import read_structure
from tango_server.conversion.tiff.record import read_provenance
from tango_server.conversion.tiff.writer import tiff_header
from tango_server.recipe import Recipe

_TOKEN = "average"  # noqa: S105 - part of the temporary file's name
_EXPOSURE = ("exposureTime=", "summedExposures=", "cameraGain=")


def require_free(output: Path) -> None:
    """Raise `OutputExistsError` if a file is at `output`, unless it is an average or a mask of an earlier call."""
    try:
        provenance = read_provenance(read_structure(output))
    except SourceMissingError:
        return
    except SourceError:
        provenance = None
    if provenance is None or provenance.average is None:
        raise OutputExistsError(output, "exists and was not made by petif average", "Choose another name.")


def write_average(output: Path, average: Average) -> bool:
    """Write the average to `output`, with a sidecar if all files agree on their exposure; return whether they do.

    Raises
    ------
    OutputWriteError
        if it cannot be written.
    """
    sidecar = _common_sidecar(average.files)
    beside = sidecar_path(output)
    beside.unlink(missing_ok=True)  # that of an earlier average; first, so that no reader takes it for the new one's
    _write(output, average.image, _description(output, average))
    if sidecar is not None:
        publish(beside, write_parts([sidecar.text.encode(ENCODING)]), Attempt(_TOKEN))
    return sidecar is not None


def write_hot_pixels(output: Path, mask: Image, average: Average, sigma: float) -> None:
    """Write the mask of the hot pixels of an average, found with `sigma`; raises as `write_average` does."""
    _write(output, mask, _description(output, average, hot_pixels_above=sigma))


def _write(output: Path, image: Image, description: str) -> None:
    little = image.dtype.newbyteorder("<")
    rows, columns = image.shape
    head = tiff_header(
        (rows, columns), little, description=description, software=software(), taken=tiff_time(time.time())
    )
    pixels = image.astype(little, order="C", copy=False)
    publish(output, write_parts([head, pixels]), Attempt(_TOKEN, durable=True))


def _description(output: Path, average: Average, **more: Any) -> str:
    first, last = average.files[0], average.files[-1]
    paths = "\0".join(str(path) for path in average.files)
    facts = {
        "method": average.method,
        "frames": average.frames,
        "first": first.name,
        "last": last.name,
        "files_sha256": hashlib.sha256(os.fsencode(paths)).hexdigest(),
        **more,
    }
    record = json.loads(describe(Recipe(), FrameLocation(first), output))
    return json.dumps({**record, "average": facts}, separators=(",", ":"), ensure_ascii=True)


def _common_sidecar(files: tuple[Path, ...]) -> Sidecar | None:
    """Return the first file's sidecar if all files have one, with the same exposure and gain."""
    first: Sidecar | None = None
    for path in files:
        try:
            sidecar = read_sidecar(path)
        except SourceError:
            return None
        if sidecar is None or sidecar.header.exposure is None:
            return None
        first = first or sidecar
        if _exposure(sidecar) != _exposure(first):
            return None
    return first


def _exposure(sidecar: Sidecar) -> list[str]:
    return [line for line in sidecar.text.splitlines() if line.startswith(_EXPOSURE)]
