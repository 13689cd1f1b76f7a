"""A detector as its modules' files describe it: where each module goes, the assembled mask, the header.

The description is kept for the next frame, as long as no file changes.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tango_server.conversion.errors import IncompleteFileError
from tango_server.conversion.frame_header import FrameHeader
from tango_server.conversion.image.own_mask import OwnMask
from tango_server.conversion.lambda_detector.layout import Layout, Placed, layout_of
from tango_server.conversion.lambda_detector.module_file import ModuleFile

_EV_ANGSTROM = 12_398.419843320026
"""Energy in eV times wavelength in Angstrom."""


@dataclass(frozen=True, slots=True, eq=False)
class Detector:
    """All modules together. `own_mask` masks the gaps too; `pixel_type` is native."""

    layout: Layout
    pixel_type: np.dtype[Any]
    own_mask: OwnMask
    header: FrameHeader


def detector_of(modules: Sequence[ModuleFile]) -> Detector:
    """Return the detector of at least one module.

    Raises
    ------
    IncompleteFileError
        if a description is not written yet.
    UnsupportedImageError
        if the modules do not make one frame.

    """
    notes, key = modules[0].opened.notes, ("lambda", *(module.opened.path for module in modules))
    if key not in notes:
        notes[key] = _described(modules)
    known: Detector = notes[key]
    return known


def _described(modules: Sequence[ModuleFile]) -> Detector:
    types = [module.frames().pixel_type.newbyteorder("=") for module in modules]
    for module, kind in zip(modules, types, strict=True):
        if kind != types[0]:
            raise module.unfit(f"its pixels are {kind}, those of {modules[0].path.name} {types[0]}")
    layout = layout_of([_placed(module, alone=len(modules) == 1) for module in modules])
    header = FrameHeader()
    for stated in map(_header, modules):
        limits = [each.saturation for each in (header, stated) if each.saturation is not None]
        header = replace(header.or_else(stated), saturation=min(limits, default=None))
    return Detector(layout, types[0], _mask(modules, layout), header)


def _placed(module: ModuleFile, *, alone: bool) -> Placed:
    if not module.is_lambda():
        raise module.unfit("its description names no Lambda, although its name is that of a module")
    frames = module.frames()
    corner = module.translation() or ((0.0, 0.0) if alone else None)
    if corner is None:
        raise IncompleteFileError(
            module.path, "it does not say where its module is (translation/distance)", "Check what wrote this file."
        )
    return Placed(module.path, (frames.rows, frames.columns), *corner)


def _mask(modules: Sequence[ModuleFile], layout: Layout) -> OwnMask:
    pixels = np.ones(layout.shape, np.bool_)
    for module, (rows, columns) in zip(modules, layout.places, strict=True):
        masked = module.mask()
        pixels[rows, columns] = False if masked is None else masked
    pixels.flags.writeable = False
    digest = hashlib.sha256(np.packbits(pixels).tobytes()).hexdigest()
    return OwnMask(identity=("lambda", layout.shape, digest), pixels=pixels)


def _header(module: ModuleFile) -> FrameHeader:
    energy = module.number("collection/beam_energy", "keV", "eV")
    return FrameHeader.stated(
        detector=module.text("description").strip(),
        exposure=module.number("count_time", "s", "ms"),
        wavelength=_EV_ANGSTROM / (1000 * energy) if energy else None,
        distance=module.number("distance", "mm"),
        pixel_size_x=module.number("x_pixel_size", "mm", "um"),
        pixel_size_y=module.number("y_pixel_size", "mm", "um"),
        saturation=module.number("saturation_value"),
    )


def sequence_note(modules: Sequence[ModuleFile], index: int) -> str:
    """Return a note if modules number the frame at an index differently: one of them has lost frames before it."""
    stated = {module.path.name: module.number("sequence_number", index=index) for module in modules}
    stated = {name: number for name, number in stated.items() if number}
    if len(set(stated.values())) < 2:  # noqa: PLR2004 - two that differ
        return ""
    said = ", ".join(f"{number:g} in {name}" for name, number in stated.items())
    return f"The modules number this frame differently ({said}): one of them may have lost frames."
