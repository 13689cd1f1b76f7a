"""The correction of a frame: checks the frame itself, and keeps prepared masters for the next ones."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from tango_server.conversion.corrections.master_files import identity_of, split
from tango_server.conversion.corrections.preparation import Frame, Preparation
from tango_server.conversion.errors import AlreadyCorrectedError, DarkMissingError
from tango_server.conversion.esperanto.mask import mask_of
from tango_server.conversion.files.roots import ANYWHERE, NO_FIELDS, Roots
from tango_server.conversion.frame_source import FrameSource, ImageInfo
from tango_server.conversion.image.correction import Correction
from tango_server.conversion.sidecar import header_of
from tango_server.messages import Master
from tango_server.recipe import Recipe
from tango_server.recipe.corrections import DARK_FACTS, Corrections, DarkFacts

_KEPT = 2  # a run with two exposures has two darks


def correction_of(
    source: FrameSource,
    image: ImageInfo,
    recipe: Recipe,
    corrections: Corrections | None,
    *,
    fields: Mapping[str, object] = NO_FIELDS,
    roots: Roots = ANYWHERE,
) -> Correction | None:
    """Return the correction of an image of an open frame; None if there is nothing to correct, to mask or to count.

    Parameters
    ----------
    source, image: what is to be corrected
    recipe: for its conversion
    corrections: those of the recipe, with resolved paths; None if it has none
    fields: the frame's metadata
    roots: the folders that may be read

    Raises
    ------
    CorrectionError
        if a master is missing, unreadable, or does not fit the frame, or if its dark is already off or missing.
    OutsideRootsError
        if a master is outside the read roots.

    """
    own_mask = source.own_mask
    if corrections is None and recipe.combine is not None:
        corrections = Corrections()
    if corrections is None:
        own_mask = own_mask if own_mask is not None and own_mask.always else None
        if own_mask is None and source.header.saturation is None:
            return None
    header = header_of(source, roots)
    frame = Frame(
        source.location.file,
        image.shape,
        image.pixel_type,
        header.of_exposure,
        image.stored,
        saturation=header.saturation,
        own_mask=own_mask,
        mask=_mask_of(recipe, fields) if corrections is not None or own_mask is not None else None,
        dark_facts=DarkFacts.of(fields.get(DARK_FACTS)),
    )
    return _correction_for(frame, recipe, corrections or Corrections(), roots)


def _mask_of(recipe: Recipe, fields: Mapping[str, object]) -> Path | None:
    return None if recipe.esperanto is None else mask_of(recipe.esperanto, fields)


def _correction_for(frame: Frame, recipe: Recipe, corrections: Corrections, roots: Roots = ANYWHERE) -> Correction:
    notes = _require_raw(frame, corrections)
    if corrections.wants_run_dark:
        notes = (*notes, _without_dark(frame, corrections))
    wanted = corrections.masters if frame.mask is None else (*corrections.masters, ("mask", str(frame.mask)))
    files = tuple(split(path, frame.path)[0] for _, path in wanted)
    identities = tuple(identity_of(file, roots) for file in files)
    prepared = _prepared(Preparation(frame, recipe, corrections, roots, wanted, files, identities))
    return replace(
        prepared,
        masters=tuple(_of_run(master, frame.dark_facts) for master in prepared.masters),
        notes=(*notes, *prepared.notes, *filter(None, [frame.dark_facts.note if corrections.darks else ""])),
    )


def noted(notes: Sequence[str]) -> str:
    """Return the notes as a sentence for a report; empty without any."""
    return f"Corrections: {'; '.join(dict.fromkeys(notes))}." if notes else ""


def _of_run(master: Master, facts: DarkFacts) -> Master:
    if master.kind != "dark":
        return master
    exposure = facts.exposure_time if master.exposure_time is None else master.exposure_time
    return master.model_copy(update={"run_uid": facts.run_uid, "exposure_time": exposure})


def _require_raw(frame: Frame, corrections: Corrections) -> tuple[str, ...]:
    """Refuse a dark for a frame whose own dark is off, or may be; return notes."""
    off = frame.header.dark_is_off
    if off is False:
        return ()
    if corrections.dark is not None and not corrections.force:
        if off:
            problem = "its dark is already subtracted"
            advice = "Convert it without a dark, or use force."
        else:
            problem = "cannot tell whether its dark is already subtracted: it has floats, and its sidecar is missing"
            advice = "Restore NAME.tif.metadata, convert it without a dark, or use force."
        raise AlreadyCorrectedError(frame.path, problem, advice)
    if corrections.saturation is None:
        return ()
    return ("overexposed pixels were not counted, since the dark is, or may be, subtracted already",)


def _without_dark(frame: Frame, corrections: Corrections) -> str:
    why = frame.dark_facts.note or "no run has provided one"
    if corrections.on_missing_dark == "fail":
        raise DarkMissingError(
            frame.path,
            f"no dark for this frame: {why}",
            'Take a dark first, name a dark file, or set on_missing_dark = "convert".',
        )
    return f"no dark was subtracted: {why}"


@lru_cache(maxsize=_KEPT)
def _prepared(preparation: Preparation) -> Correction:
    """Return a correction; the latest are kept, since this takes longer than converting a frame."""
    return preparation.correction()
