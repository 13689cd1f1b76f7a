"""A recipe's part for detector corrections: dark, flat, mask, saturation.

>>> Corrections(dark="run", flat="/data/masters/flat.tif", saturation=60000).dark
'run'
>>> Corrections(mask="/data/masters/mask.edf").changes_values
False

A master is a TIFF, EDF, CBF or `.npy` file, or a data set `file.h5::/path`; `::/path` is in the frame's own file.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from tango_server.limits import LONGEST_SOURCE
from tango_server.recipe.base import Frozen

FROM_RUN: Literal["run"] = "run"
"""The value of `dark` for the dark frames of the run."""
DARK_FACTS = "recipe.dark"
"""The metadata key for what the session knows about the dark of a run: the fields of `DarkFacts`."""
MOST_DARKS = 100
_MOST_MASKS = 16
_LONGEST_PATHS = 20_000  # characters of all masters, which an output lists in its tags

MasterPath = Annotated[str, Field(min_length=1, max_length=LONGEST_SOURCE)]
Kind = Literal["dark", "flat", "mask"]
KINDS: tuple[Kind, ...] = ("dark", "flat", "mask")
Counts = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _one_of_one(value: object) -> object:
    """Return the item of a list of one, so that both spellings have one hash."""
    return value[0] if isinstance(value, list | tuple) and len(value) == 1 else value


class Corrections(Frozen):
    """The corrections of a frame, in its own geometry, before it is turned and cast.

    In this order: count overexposed pixels, subtract the dark, divide by the flat, mark masked pixels. A masked pixel
    becomes `invalid_value`, or NaN in a float type. With any correction, NaN and Inf in frame, dark or flat are masked.
    With a dark or flat, a recipe without a pixel type gives float32; float64 from 32-bit integers and float64.

    Parameters
    ----------
    dark: a path, several of one detector, or "run": the last dark of the run before the frame
    dark_combine: how several darks become one
    dark_max_age: maximum age of a dark from an earlier run, in s
    on_missing_dark: what to do with a frame whose run has no dark
    flat: a path; used as it is. Its median must lie between 0.5 and 2
    flat_normalize: "mean" divides the flat by its mean first
    mask: a path or several; not 0 for pixels to ignore
    repair: "median" fills a masked pixel from its 5 x 5 neighbourhood, if at least half of that is unmasked
    saturation: counts of one exposure from which on a pixel is overexposed
    masters_in: the geometry of the masters: the raw frame's, the output's, or as Dioptas saves masks (upside down)
    force: subtract the dark even if the frame says that it is already off

    """

    dark: MasterPath | Annotated[tuple[MasterPath, ...], Field(min_length=2, max_length=MOST_DARKS)] | None = None
    dark_combine: Literal["mean", "median"] = "mean"
    dark_max_age: Seconds | None = None
    on_missing_dark: Literal["fail", "convert"] = "fail"
    flat: MasterPath | None = None
    flat_normalize: Literal["mean"] | None = None
    mask: MasterPath | Annotated[tuple[MasterPath, ...], Field(min_length=2, max_length=_MOST_MASKS)] | None = None
    repair: Literal["median"] | None = None
    saturation: Counts | None = None
    masters_in: Literal["raw", "output", "dioptas"] = "raw"
    force: bool = False

    @model_validator(mode="before")
    @classmethod
    def _plain_paths(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        return {name: _one_of_one(value) if name in {"dark", "mask"} else value for name, value in given.items()}

    @model_validator(mode="after")
    def _fit_a_header(self) -> Self:
        size = sum(len(path) for _, path in self.masters)
        if size > _LONGEST_PATHS:
            raise ValueError(f"the paths of the masters have {size} characters together (at most {_LONGEST_PATHS})")
        return self

    @property
    def darks(self) -> tuple[str, ...]:
        """The paths of the dark; none for "run"."""
        return () if self.dark == FROM_RUN else _paths(self.dark)

    @property
    def masks(self) -> tuple[str, ...]:
        """The paths of the masks."""
        return _paths(self.mask)

    @property
    def masters(self) -> tuple[tuple[Kind, str], ...]:
        """Kind and path of all masters."""
        flats = () if self.flat is None else (self.flat,)
        groups: tuple[tuple[Kind, tuple[str, ...]], ...] = (("dark", self.darks), ("flat", flats), ("mask", self.masks))
        return tuple((kind, path) for kind, paths in groups for path in paths)

    @property
    def wants_run_dark(self) -> bool:
        """Whether the dark of the run is still to be found."""
        return self.dark == FROM_RUN

    @property
    def changes_values(self) -> bool:
        """Whether there is a dark or a flat, so that the values are no longer those of the frame."""
        return self.dark is not None or self.flat is not None

    def with_dark(self, paths: tuple[str, ...]) -> Self:
        """Return these corrections with the files of a run's dark."""
        return self._with(dark=paths)

    def with_masters(self, paths: dict[str, str]) -> Self:
        """Return these corrections with each master's path replaced by its value in `paths`."""
        return self._with(
            dark=self.dark if self.wants_run_dark else tuple(paths[each] for each in self.darks),
            flat=None if self.flat is None else paths[self.flat],
            mask=tuple(paths[each] for each in self.masks),
        )

    def _with(self, **changes: object) -> Self:
        given = {name: value or None for name, value in changes.items()}
        return type(self).model_validate({**self.model_dump(), **given})


class DarkFacts(Frozen):
    """What a session knows about the dark that it found for a frame of a run, or why it found none.

    `run_uid`: the dark's run. `exposure_time` (s, of one exposure) and `gain` of the dark, as in the documents.
    `note`: for the report.
    """

    run_uid: str | None = None
    exposure_time: float | None = None
    gain: float | None = None
    note: str = ""

    @classmethod
    def of(cls, given: object) -> Self:
        """Return the facts in a frame's metadata; those that are not there or invalid are unknown."""
        try:
            return cls.model_validate(given)
        except ValidationError:
            return cls()


def split_master(path: str) -> tuple[str, str]:
    """Return the file of a master and the data set in it; no file if that is the frame's own.

    >>> split_master("/data/dark.h5::/exchange/dark"), split_master("::/exchange/dark"), split_master("/data/dark.tif")
    (('/data/dark.h5', '/exchange/dark'), ('', '/exchange/dark'), ('/data/dark.tif', ''))
    """
    file, _, inside = path.partition("::")
    return file, inside


def _paths(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value or ()
