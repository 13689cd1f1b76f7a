"""Frames as QXRD writes them, with the few keys of their sidecars that say how they were exposed."""

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from petif_bluesky.sim.qxrd_file import write_frame


def write_exposure(
    path: Path,
    image: np.ndarray[Any, Any],
    *,
    time: float = 1.0,
    summed: int = 1,
    gain: int = 0,
    data_type: str | None = "16 Bit Raw Data",
) -> Path:
    """Write a frame as QXRD does; without `data_type` it has no sidecar."""
    write_frame(path, image, document_name=path.name, acquired=datetime.now().astimezone())
    if data_type is not None:
        keys = f"exposureTime={time}\nsummedExposures={summed}\ncameraGain={gain}\ndataTypeName={data_type}\n"
        path.with_name(f"{path.name}.metadata").write_text(f"[metadata]\n{keys}")
    return path
