"""What each frame is and what must become of it: pure functions of the seed and the frame's number."""

import random
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petif_bluesky.sim.pattern import Pattern
from petif_bluesky.sim.qxrd_file import PIXEL_TYPES

PLACES = ("disk", "mount")
"""The folders below the root, each with `raw` and `processed`; the outputs of the second are what is disturbed."""

_RUN_LENGTH = 40
_UNFINISHED = 0.015
_HOSTILE = 0.05
_CORRECTED = 0.6
"""Of the frames that can be: raw ones of a run, with a recipe of their own, to a new file."""
_IN_PLACE = 0.2
_MOUNTED = 0.25
_DEFAULT_RECIPE = 0.2
_RECIPE_OF_THE_SERVER: dict[str, Any] = {"rotation": 0, "flip": "none", "pixel_type": "int32"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFrame:
    """One frame that will be taken.

    `recipe` is None for the server's own. `early`: announced when its file has only begun. `unfinished`: its writer
    gives up for good after that many stages (0: never, as it should be). `hostile`: its file is one of `tests.hostile`,
    and must have a report, whatever that says. `corrected`: its recipe has the dark of its run, which comes after it,
    and the mask, which is replaced in the middle of the chaos.
    """

    number: int
    place: str
    pixel_type: str
    recipe: dict[str, Any] | None
    run_uid: str | None
    key: str
    early: bool
    sidecar: bool
    unfinished: int
    hostile: bool = False
    corrected: bool = False

    @property
    def name(self) -> str:
        """Name of the file."""
        return f"chaos-{self.number:05d}.tif"

    @property
    def in_place(self) -> bool:
        """Whether the file itself is turned."""
        return self.recipe is not None and self.recipe["output"]["mode"] == "in_place"


def planned_frame(seed: int, number: int) -> PlannedFrame:
    """Return what frame `number` of the run `seed` is.

    >>> planned_frame(1, 7) == planned_frame(1, 7)
    True
    """
    chance = random.Random(f"{seed}/{number}")
    unfinished = chance.randrange(1, 6) if chance.random() < _UNFINISHED else 0
    recipe = _recipe(chance)
    in_place = recipe is not None and recipe["output"]["mode"] == "in_place"
    place = "mount" if not in_place and chance.random() < _MOUNTED else "disk"
    pixel_type = chance.choice(PIXEL_TYPES)
    hostile = not in_place and not unfinished and random.Random(f"{seed}/{number}/hostile").random() < _HOSTILE
    raw = pixel_type != "float32" and recipe is not None and not in_place
    return PlannedFrame(
        number=number,
        place=place,
        pixel_type=pixel_type,
        recipe=recipe,
        run_uid=None if in_place else f"chaos-{seed}-{number // _RUN_LENGTH}",
        key=f"chaos/{seed}/{number}",
        early=bool(unfinished) or chance.random() < 0.3,
        sidecar=not unfinished and chance.random() < 0.5,
        unfinished=unfinished,
        hostile=hostile,
        corrected=raw and not hostile and random.Random(f"{seed}/{number}/corrected").random() < _CORRECTED,
    )


def image_of(seed: int, frame: PlannedFrame, size: int) -> NDArray[Any]:
    """Return the (size, size) pixels of a frame; its number stands in the first two, so that no two are alike."""
    image = _pattern(seed, frame.pixel_type, size).frame(frame.number)
    image[0, :2] = divmod(frame.number, 1000)
    return image


def expected_of(frame: PlannedFrame, image: NDArray[Any]) -> NDArray[Any]:
    """Return what `image` must have become, by numpy alone."""
    recipe = frame.recipe or _RECIPE_OF_THE_SERVER
    turned = np.rot90(image, recipe["rotation"] // 90)
    axes = {"none": (), "0": (0,), "1": (1,), "both": (0, 1)}[recipe["flip"]]
    turned = np.flip(turned, axes)
    target: np.dtype[Any] = np.dtype(recipe["pixel_type"] or image.dtype)
    if target == image.dtype:
        return turned
    if target.kind == "f":
        return turned.astype(target)
    limits = np.iinfo(target)
    return np.clip(np.trunc(turned.astype(np.float64)), limits.min, limits.max).astype(target)


def dark_of(run_uid: str, size: int) -> NDArray[np.uint16]:
    """Return the (size, size) dark of a run: no two runs have the same."""
    return random.Random(run_uid).randrange(20, 90) + np.arange(size * size, dtype=np.uint16).reshape(size, size) % 7


def mask_of(version: int, size: int) -> NDArray[np.uint8]:
    """Return the (size, size) mask: `version` 0 before it is replaced, 1 afterwards."""
    mask = np.zeros((size, size), np.uint8)
    mask[10 + 20 * version : 14 + 20 * version, 8:20] = 1
    return mask


def corrected_of(frame: PlannedFrame, image: NDArray[Any], dark: NDArray[Any], mask: NDArray[Any]) -> NDArray[Any]:
    """Return what the raw `image` must have become with its dark and mask, by numpy alone."""
    recipe = frame.recipe or _RECIPE_OF_THE_SERVER
    values = np.where(mask != 0, np.nan, image.astype(np.float64) - dark)
    target = np.dtype(recipe["pixel_type"] or ("float64" if image.dtype.itemsize > 2 else "float32"))
    if target.kind != "f":
        values = np.nan_to_num(values, nan=0.0)
    plain = replace(frame, recipe={**recipe, "pixel_type": target.name})
    return expected_of(plain, values)


def _recipe(chance: random.Random) -> dict[str, Any] | None:
    what = chance.random()
    if what < _DEFAULT_RECIPE:
        return None
    if what < _DEFAULT_RECIPE + _IN_PLACE:
        return {"rotation": 90, "flip": "none", "pixel_type": None, "output": {"mode": "in_place"}}
    return {
        "rotation": chance.choice((0, 90, 180, 270)),
        "flip": chance.choice(("none", "0", "1", "both")),
        "pixel_type": chance.choice((None, "int32", "uint32", "uint16", "float64")),
        "output": {"mode": "new", "on_existing": chance.choice(("replace_own", "number", "refuse", "skip"))},
    }


@cache
def _pattern(seed: int, pixel_type: str, size: int) -> Pattern:
    center = (0.54 * size, 0.43 * size)
    return Pattern(
        shape=(size, size), center=center, distance=0.4 * size, energy=42_000.0, pixel_type=pixel_type, seed=seed
    )
