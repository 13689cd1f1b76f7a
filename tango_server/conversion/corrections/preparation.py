"""Read the masters of a recipe, check that they fit a frame, and turn them to the output."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tango_server.conversion.corrections.exposure import Exposure
from tango_server.conversion.corrections.master_files import Identity, MasterImage, read_master
from tango_server.conversion.errors import MasterUnfitError
from tango_server.conversion.esperanto.padding import FILL
from tango_server.conversion.files.roots import Roots
from tango_server.conversion.image.correction import NO_PIXELS, Correction
from tango_server.conversion.image.orientation import AS_STORED, Orientation
from tango_server.conversion.image.transform import output_type
from tango_server.messages import Master
from tango_server.recipe import Recipe
from tango_server.recipe.corrections import Corrections, DarkFacts, Kind

_NEAR_SATURATION = 0.9
_FLAT_MEDIAN = (0.5, 2.0)
_UPSIDE_DOWN = Orientation(transpose=False, reverse_rows=True, reverse_columns=False)


@dataclass(frozen=True, slots=True)
class Frame:
    """The frame to be corrected.

    `shape` (rows, columns) and `pixel_type` as stored, `stored`: the orientation by its tag, `saturation`: its own
    limit in counts if it states one, `mask`: of an ESPERANTO recipe.
    """

    path: Path = field(compare=False)
    shape: tuple[int, int]
    pixel_type: np.dtype[Any]
    exposure: Exposure
    stored: Orientation = AS_STORED
    saturation: float | None = None
    mask: Path | None = None
    dark_facts: DarkFacts = field(default_factory=DarkFacts, compare=False)


@dataclass(frozen=True, slots=True, eq=False)
class _Turned:
    """A master in the geometry of the output, with its file."""

    image: NDArray[Any]
    file: MasterImage


@dataclass(frozen=True, slots=True)
class Preparation:
    """The masters of a frame that are being read; equal for frames that they correct alike."""

    frame: Frame
    recipe: Recipe
    corrections: Corrections
    roots: Roots
    wanted: tuple[tuple[Kind, str], ...]
    files: tuple[Path, ...]
    identities: tuple[Identity, ...]

    def correction(self) -> Correction:
        """Read the masters and return the correction; raise `CorrectionError`, `OutsideRootsError`."""
        found: dict[str, list[_Turned]] = {"dark": [], "flat": [], "mask": []}
        for kind, path in self.wanted:
            found[kind].append(self._turned(kind, path))
        notes: list[str] = []
        masked = self._mask(found["mask"], notes)
        dark, darks = self._dark(found["dark"], masked, notes)
        flat, flats = self._flat(found["flat"], masked)
        if masked.all():
            names = ", ".join(path for _, path in self.wanted)
            raise self._unfit(names, "all pixels are masked")
        exact = all(each is None or _is_exact(each) for each in (dark, flat))
        short = exact and output_type(self.recipe, self.frame.pixel_type) != np.float64
        work = self._work(exact=short)
        held = np.dtype(np.float32 if exact else np.float64)
        listed = (*darks, *flats, *(_listed("mask", each.file) for each in found["mask"]))
        return Correction(
            shape=masked.shape,
            work=work,
            small_in_float32=short,
            dark=_as(dark, held, masked, 0),
            flat=_as(flat, held, masked, 1),
            masked=np.flatnonzero(masked) if masked.any() else NO_PIXELS,
            marks=bool(self.wanted) or self.corrections.changes_values or self.recipe.esperanto is not None,
            limit=self._limit(),
            repair=self.corrections.repair is not None,
            reserved=None if self.recipe.esperanto is None else FILL,
            masters=listed,
            notes=tuple(notes),
        )

    @property
    def _shape(self) -> tuple[int, int]:
        """Rows and columns of the output."""
        return self.frame.stored.then(Orientation.of(self.recipe)).shape(self.frame.shape)

    def _turned(self, kind: Kind, path: str) -> _Turned:
        file, _ = read_master(path, self.roots, self.frame.path)
        turning = self._turning(file, own=self.frame.mask is not None and path == str(self.frame.mask))
        image = file.image
        if image.ndim == 3 and len(image) == 1:  # noqa: PLR2004 - frames, rows, columns
            image = image[0]
        if image.ndim == 3 and kind != "dark":  # noqa: PLR2004
            raise self._unfit(path, f"a {kind} has one image, this file has {len(image)}")
        frames = [turning.apply(each) for each in (image if image.ndim == 3 else image[None])]  # noqa: PLR2004
        if frames[0].shape != self._shape:
            rows, columns = image.shape[-2:]
            raise self._unfit(
                path,
                f"{rows} x {columns} pixels, turned {frames[0].shape[0]} x {frames[0].shape[1]}, but the frame has "
                f"{self.frame.shape[0]} x {self.frame.shape[1]}, turned {self._shape[0]} x {self._shape[1]}",
            )
        return _Turned(frames[0] if len(frames) == 1 else np.stack(frames), file)

    def _turning(self, file: MasterImage, *, own: bool) -> Orientation:
        """Return the orientation of the output relative to a master; `own`: the mask of an ESPERANTO recipe."""
        recipe, stored, place = Orientation.of(self.recipe), self.frame.stored, self.corrections.masters_in
        if file.turned is not None:
            return file.turned.inverse().then(recipe)
        if place == "output" and not own:
            return AS_STORED
        if place == "dioptas" and not own:
            return _UPSIDE_DOWN.then(stored).then(recipe)
        return stored.then(recipe)

    def _mask(self, masks: Sequence[_Turned], notes: list[str]) -> NDArray[np.bool_]:
        masked = np.zeros(self._shape, np.bool_)
        for each in masks:
            marked = each.image != 0
            if 2 * np.count_nonzero(marked) > marked.size:
                notes.append(f"{each.file.path} masks {np.count_nonzero(marked)} of {marked.size} pixels")
            masked |= marked
        return masked

    def _dark(
        self, darks: Sequence[_Turned], masked: NDArray[np.bool_], notes: list[str]
    ) -> tuple[NDArray[Any] | None, list[Master]]:
        """Return the combined dark, scaled to the frame's number of exposures; its bad pixels are masked."""
        if not darks:
            return None, []
        frames, listed = [], []
        for each in darks:
            scale = self._scale(each.file, notes)
            scaled = each.image if scale == 1 else each.image.astype(np.float64) * scale
            frames += [scaled] if scaled.ndim == 2 else list(scaled)  # noqa: PLR2004 - rows, columns
            listed.append(_listed("dark", each.file, scale))
        dark = frames[0] if len(frames) == 1 else self._combined(frames)
        masked |= ~np.isfinite(dark)
        self._require_dark(darks, masked)
        return dark, listed

    def _combined(self, frames: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
        if self.corrections.dark_combine == "median":
            with np.errstate(invalid="ignore"):
                middle: NDArray[np.float64] = np.median(np.stack(frames).astype(np.float64), axis=0)
            return middle
        total = np.zeros(frames[0].shape)
        for frame in frames:
            total += frame
        return total / len(frames)

    def _scale(self, dark: MasterImage, notes: list[str]) -> float:
        """Return the factor of a dark after checking its exposure."""
        frame, taken = self.frame.exposure, dark.exposure
        if taken.dark_is_off and not self.corrections.force:
            raise self._unfit(dark.path, "its own dark is already subtracted")
        if found := frame.unlike(taken):
            raise self._unfit(dark.path, f"{found}")
        facts = self.frame.dark_facts
        if facts.run_uid is None and (unknown := frame.unknown_beside(taken)):
            notes.append(f"{' and '.join(unknown)} of the frame and of {dark.path} could not be compared")
        if frame.summed is None or taken.summed is None:
            if frame.summed != taken.summed:
                notes.append(f"the number of summed exposures of the frame or of {dark.path} is unknown")
            return 1.0
        return frame.summed / taken.summed

    def _require_dark(self, darks: Sequence[_Turned], masked: NDArray[np.bool_]) -> None:
        """Refuse a dark that was taken with the beam on the detector."""
        for each in darks:
            limit = self.corrections.saturation
            if limit is not None:
                limit *= each.file.exposure.summed or 1.0
            elif each.image.dtype.kind in "iu" and each.image.itemsize <= 2:  # noqa: PLR2004 - bytes: those of a raw frame
                limit = float(np.iinfo(each.image.dtype).max)
            if limit is None:
                continue
            values = each.image[..., ~masked]
            if values.size and (median := float(np.median(values))) >= _NEAR_SATURATION * limit:
                raise self._unfit(
                    each.file.path,
                    f"the median of this dark, {median:g} counts, is near saturation ({limit:g})",
                    "Take a dark without beam.",
                )

    def _flat(self, flats: Sequence[_Turned], masked: NDArray[np.bool_]) -> tuple[NDArray[Any] | None, list[Master]]:
        """Return the flat; its bad pixels are masked."""
        if not flats:
            return None, []
        (flat,) = flats
        image, scale = flat.image, 1.0
        masked |= ~np.isfinite(image)
        used = image[~masked]
        if not used.size:
            return image, [_listed("flat", flat.file)]  # all is masked: refused for that
        if np.any(used <= 0):
            raise self._unfit(
                flat.file.path,
                f"this flat is 0 or negative in {np.count_nonzero(used <= 0)} pixels that are not masked",
            )
        if self.corrections.flat_normalize == "mean":
            scale = 1 / float(used.mean(dtype=np.float64))
            image = image.astype(np.float64) * scale
        elif not _FLAT_MEDIAN[0] <= (median := float(np.median(used))) <= _FLAT_MEDIAN[1]:
            raise self._unfit(
                flat.file.path,
                f"the median of this flat is {median:g}, not between {_FLAT_MEDIAN[0]:g} and {_FLAT_MEDIAN[1]:g}",
                'Divide it by its mean, or set flat_normalize = "mean".',
            )
        return image, [_listed("flat", flat.file, scale)]

    def _limit(self) -> float | None:
        """Return from how many counts on a pixel of the frame is overexposed, None if unknown."""
        exposure = self.frame.exposure
        if exposure.dark_is_off is not False:
            return None
        if self.corrections.saturation is None:
            return self.frame.saturation
        return self.corrections.saturation * (exposure.summed or 1.0)

    def _work(self, *, exact: bool) -> np.dtype[Any] | None:
        """Return the type to calculate in: float32 if it represents frame, dark and flat exactly, and is written."""
        if self.corrections.dark is None and self.corrections.flat is None:
            return None
        small = self.frame.pixel_type.itemsize < 4 or self.frame.pixel_type == np.float32  # noqa: PLR2004 - bytes
        return np.dtype(np.float32 if small and exact else np.float64)

    def _unfit(self, master: str, problem: str, advice: str = "Give masters of this detector.") -> MasterUnfitError:
        return MasterUnfitError(self.frame.path, f"cannot correct it by {master}: {problem}", advice)


def _listed(kind: Kind, file: MasterImage, scale: float = 1.0) -> Master:
    exposure = file.exposure.time if kind == "dark" else None
    return Master(
        kind=kind,
        path=file.path,
        sha256=file.sha256,
        scale=scale,
        modified=file.modified,
        exposure_time=exposure,
    )


def _is_exact(image: NDArray[Any]) -> bool:
    """Return whether float32 represents all finite values exactly."""
    if image.dtype == np.float32 or image.itemsize < 4:  # noqa: PLR2004 - bytes
        return True
    with np.errstate(over="ignore", invalid="ignore"):
        short = image.astype(np.float32)
    same: bool = np.array_equal(short, image, equal_nan=image.dtype.kind == "f")
    return same


def _as(
    image: NDArray[Any] | None, held: np.dtype[Any], masked: NDArray[np.bool_], neutral: int
) -> NDArray[Any] | None:
    if image is None:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        result = np.array(image, held, order="C")
    result[masked] = neutral
    return result
