"""The frames of a catalogued run, compared with numpy's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from tests.system.waiting import until

Image = np.ndarray[Any, Any]


def check(client: Any, uid: str, expected: Callable[[Image], Image], count: int) -> list[Path]:
    """Compare the frames of a run with numpy's; its event and its metadata say that all were converted.

    Returns the raw files.
    """
    catalogued = client[uid]
    frames = catalogued["converted"].read()
    raw = [Path(str(path)) for path in np.asarray(frames["converter_raw"])]
    images: Image = catalogued["converted"]["converter_image"].read()
    assert len(raw) == len(set(raw)) == count
    for image, path in zip(images, raw, strict=True):
        np.testing.assert_array_equal(np.squeeze(image), expected(tifffile.imread(path)))
    event = catalogued["conversion"].read()
    assert [int(event[f"converter_{name}"][0]) for name in ("submitted", "converted", "failed")] == [count, count, 0]
    until(lambda: "conversion" in client[uid].metadata, "the statistics are in the run's metadata")
    statistics = client[uid].metadata["conversion"]
    assert (statistics["submitted"], statistics["converted"], statistics["pending"]) == (count, count, 0)
    return raw


def as_in_the_examples(raw: Image) -> Image:
    """Return what the recipe of the examples' sessions makes of a frame: turned by 90 degrees, flipped, int32."""
    return np.flip(np.rot90(raw), 1).astype(np.int32)
