"""Runs of frames that lie in files of any name."""

from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from tests.unit.documents import NAME, NUMBER, ComposedRun

SHAPE = (24, 16)
IMAGE = {"source": "test", "dtype": "array", "dtype_numpy": "<f4", "shape": [1, *SHAPE], "external": "FILESTORE:"}


def written(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.arange(np.prod(SHAPE), dtype="<f4").reshape(SHAPE) + 1000 * number)
    return path


def taken(run: ComposedRun, folder: Path, names: list[str | None], **settings: Any) -> None:
    """Compose the events of one detector in `folder`; None for a name is a point without a frame."""
    run.stream(pe={"image": IMAGE, "full_file_name": NAME, "total": NUMBER})
    datum = run.resource(root="/", path=str(folder).lstrip("/"), **settings)
    for point, name in enumerate(names):
        if name is not None:
            path = written(folder / name, point)
            run.event(pe_image=datum(point), pe_full_file_name=str(path), pe_total=float(point))
    run.stop()
