"""Read the masters of a recipe, check that they fit a frame, and turn them to the output."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tango_server.conversion.corrections.master_files import Identity, MasterImage, read_master
from tango_server.conversion.errors import MasterUnfitError
from tango_server.conversion.esperanto.padding import FILL
from tango_server.conversion.files.roots import Roots
from tango_server.conversion.frame_header import FrameHeader
from tango_server.conversion.image.correction import NO_PIXELS, Correction
from tango_server.conversion.image.orientation import AS_STORED, Orientation
from tango_server.conversion.image.own_mask import NO_MASK, OwnMask
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

    `shape` (rows, columns) and `pixel_type` as stored, `header`: what decides whether a dark fits, `stored`: the
    orientation by its tag, `saturation`: its own limit in counts if it states one, `own_mask`: of its own file, `mask`:
    of an ESPERANTO recipe.
    """

    path: Path = field(compare=False)
    shape: tuple[int, int]
    pixel_type: np.dtype[Any]
    header: FrameHeader
    stored: Orientation = AS_STORED
    saturation: float | None = None
    own_mask: OwnMask | None = None
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
        notes: list[str] = []
        masked, masks = self._mask(notes)
        dark, darks = self._dark(masked, notes)  # one after the other, so that few images are in memory at a time
        flat, flats = self._flat(masked)
        if masked.all():
            names = ", ".join(path for _, path in self.wanted) or "its own mask"
            raise self._unfit(names, "all pixels are masked")
        held = np.result_type(*(each for each in (dark, flat) if each is not None), np.float32)
        short = held == np.float32 and output_type(self.recipe, self.frame.pixel_type) != np.float64
        short = short and self.recipe.combine is None  # what is combined is rounded once, at the end
        work = self._work(exact=short)
        own = self.frame.own_mask or NO_MASK
        marks = (
            bool(self.wanted)
            or self.recipe.combine is not None
            or self.frame.own_mask is not None
            or (
                self.recipe.corrections is not None
                and (self.corrections.changes_values or self.recipe.esperanto is not None)
            )
        )
        return Correction(
            shape=masked.shape,
            work=work,
            small_in_float32=short,
            dark=_neutral(dark, held, masked, 0),
            flat=_neutral(flat, held, masked, 1),
            masked=np.flatnonzero(masked) if masked.any() else NO_PIXELS,
            negatives=own.negatives,
            codes=own.codes,
            overflow=self._overflow(),
            marks=marks,
            limit=self._limit(),
            repair=self.corrections.repair is not None,
            reserved=FILL if marks and self.recipe.esperanto is not None else None,
            masters=(*darks, *flats, *masks),
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

    def _all(self, kind: Kind) -> Iterator[_Turned]:
        """Read the masters of a kind, one by one."""
        return (self._turned(kind, path) for found, path in self.wanted if found == kind)

    def _mask(self, notes: list[str]) -> tuple[NDArray[np.bool_], list[Master]]:
        own = self.frame.own_mask
        if own is None or own.pixels is None:
            masked = np.zeros(self._shape, np.bool_)
        else:
            masked = np.array(self.frame.stored.then(Orientation.of(self.recipe)).apply(own.pixels), order="C")
        listed = []
        for each in self._all("mask"):
            marked = each.image != 0
            if 2 * np.count_nonzero(marked) > marked.size:
                notes.append(f"{each.file.path} masks {np.count_nonzero(marked)} of {marked.size} pixels")
            masked |= marked
            listed.append(_listed("mask", each.file))
        return masked, listed

    def _dark(self, masked: NDArray[np.bool_], notes: list[str]) -> tuple[NDArray[Any] | None, list[Master]]:
        """Return the combined dark, scaled to the frame's number of exposures; its bad pixels are masked."""
        frames, listed = [], []
        for each in self._all("dark"):
            scale = self._scale(each.file, notes)
            self._require_dark(each, masked)
            scaled = each.image if scale == 1 else each.image.astype(np.float64) * scale
            frames += [scaled] if scaled.ndim == 2 else list(scaled)  # noqa: PLR2004 - rows, columns
            listed.append(_listed("dark", each.file, scale))
        if not frames:
            return None, []
        dark = frames[0] if len(frames) == 1 else self._combined(frames)
        masked |= ~np.isfinite(dark)
        return _shortened(dark), listed

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
        frame, taken = self.frame.header, dark.header
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

    def _require_dark(self, dark: _Turned, masked: NDArray[np.bool_]) -> None:
        """Refuse a dark that was taken with the beam on the detector."""
        limit, image = self.corrections.saturation, dark.image
        if limit is not None:
            limit *= dark.file.header.summed or 1.0
        elif image.dtype.kind in "iu" and image.itemsize <= 2:  # noqa: PLR2004 - bytes: those of a raw frame
            limit = float(np.iinfo(image.dtype).max)
        if limit is not None and _is_mostly(image >= _NEAR_SATURATION * limit, ~masked):
            median = float(np.median(image[..., ~masked]))
            raise self._unfit(
                dark.file.path,
                f"the median of this dark, {median:g} counts, is near saturation ({limit:g})",
                "Take a dark without beam.",
            )

    def _flat(self, masked: NDArray[np.bool_]) -> tuple[NDArray[Any] | None, list[Master]]:
        """Return the flat; its bad pixels are masked."""
        for flat in self._all("flat"):
            image, scale = flat.image, 1.0
            masked |= ~np.isfinite(image)
            free = ~masked
            self._require_flat(flat, free)
            if self.corrections.flat_normalize == "mean" and free.any():
                scale = 1 / float(image.mean(dtype=np.float64, where=free))
                image = image.astype(np.float64) * scale
            return _shortened(image), [_listed("flat", flat.file, scale)]
        return None, []

    def _require_flat(self, flat: _Turned, free: NDArray[np.bool_]) -> None:
        image, path = flat.image, flat.file.path
        if count := np.count_nonzero((image <= 0) & free):
            raise self._unfit(path, f"it is 0 or negative in {count} pixels that are not masked")
        low, high = _FLAT_MEDIAN
        if self.corrections.flat_normalize or not (_is_mostly(image < low, free) or _is_mostly(image > high, free)):
            return
        raise self._unfit(
            path,
            f"the median of this flat is {float(np.median(image[free])):g}, not between {low:g} and {high:g}",
            'Divide it by its mean, or set flat_normalize = "mean".',
        )

    def _limit(self) -> float | None:
        """Return from how many counts on a pixel of the frame is overexposed, None if unknown."""
        header = self.frame.header
        if header.dark_is_off is not False:
            return None
        if self.corrections.saturation is None:
            return self.frame.saturation
        return self.corrections.saturation * (header.summed or 1.0)

    def _overflow(self) -> int | None:
        """Return the value of a counter that is full, where one such frame would spoil a combination."""
        own, kind = self.frame.own_mask, self.frame.pixel_type
        if self.recipe.combine is None or own is None or own.pixels is None or kind.kind == "f":
            return None
        return int(np.iinfo(kind).max)

    def _work(self, *, exact: bool) -> np.dtype[Any] | None:
        """Return the type to calculate in: float32 if it represents frame, dark and flat exactly, and is written."""
        if self.corrections.dark is None and self.corrections.flat is None:
            return None
        small = self.frame.pixel_type.itemsize < 4 or self.frame.pixel_type == np.float32  # noqa: PLR2004 - bytes
        return np.dtype(np.float32 if small and exact else np.float64)

    def _unfit(self, master: str, problem: str, advice: str = "Give masters of this detector.") -> MasterUnfitError:
        return MasterUnfitError(self.frame.path, f"cannot correct it by {master}: {problem}", advice)


def _listed(kind: Kind, file: MasterImage, scale: float = 1.0) -> Master:
    exposure = file.header.one_exposure if kind == "dark" else None
    return Master(
        kind=kind,
        path=file.path,
        sha256=file.sha256,
        scale=scale,
        modified=file.modified,
        exposure_time=exposure,
    )


def _is_mostly(found: NDArray[np.bool_], free: NDArray[np.bool_]) -> bool:
    """Return whether more than half of the free pixels (of all frames) are found."""
    pixels = np.count_nonzero(free) * (found.size // free.size)
    return bool(2 * np.count_nonzero(found & free) > pixels)


def _shortened(image: NDArray[Any]) -> NDArray[Any]:
    """Return an image in float32 if that represents all finite values exactly, else in float64."""
    exact = image.dtype == np.float32 or image.itemsize < 4  # noqa: PLR2004 - bytes
    if not exact:
        with np.errstate(over="ignore", invalid="ignore"):
            short = image.astype(np.float32)
        exact = np.array_equal(short, image, equal_nan=image.dtype.kind == "f")
    with np.errstate(over="ignore", invalid="ignore"):
        return np.require(image, np.float32 if exact else np.float64, ["C", "W"])


def _neutral(
    image: NDArray[Any] | None, held: np.dtype[Any], masked: NDArray[np.bool_], value: int
) -> NDArray[Any] | None:
    """Return a master in the type `held`, with `value` in masked pixels."""
    if image is None:
        return None
    result = image.astype(held, copy=False)
    result[masked] = value
    return result
