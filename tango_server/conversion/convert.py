"""One file, one recipe, one report."""

import time
from itertools import chain
from pathlib import Path

from tango_server.conversion.errors import ConvertedDifferentlyError, OutputExistsError
from tango_server.conversion.layout import tiff_header
from tango_server.conversion.paths import ANYWHERE, Roots, output_path
from tango_server.conversion.provenance import Provenance, acquired, describe, read_provenance, software
from tango_server.conversion.publish import publish
from tango_server.conversion.reading import read_image
from tango_server.conversion.structure import Structure, read_structure
from tango_server.conversion.transform import Turning
from tango_server.messages import FrameReport
from tango_server.recipe import NewFile, Recipe


def convert_file(
    source: str | Path,
    recipe: Recipe,
    *,
    roots: Roots = ANYWHERE,
    token: str = "offline",  # noqa: S107
) -> FrameReport:
    """Convert one file and return its report (`converted` or `skipped`, never `failed`).

    Parameters
    ----------
    source: the file to convert
    recipe: what to do to it
    roots: the folders that may be read and written; by default every one
    token: names the temporary file, so that what a killed process leaves can be found

    Raises
    ------
    ConversionError
        one of its kinds; the source is untouched then, and no partial output exists.

    """
    started = time.perf_counter()
    path = roots.source(source)
    output = output_path(path, recipe, roots)
    structure = read_structure(path)
    structure.require_complete(path)
    if isinstance(recipe.output, NewFile):
        chosen, reason = _new_output(output, recipe)
    else:
        chosen, reason = output, _in_place_reason(path, structure, recipe)
    if reason:
        return FrameReport(
            source=str(path),
            output=str(chosen),
            outcome="skipped",
            reason=reason,
            recipe_hash=recipe.hash,
            conversion_time=time.perf_counter() - started,
            finished=time.time(),
        )
    turning = Turning(read_image(path, structure), recipe)
    in_place = not isinstance(recipe.output, NewFile)
    taken = acquired(structure.pages[0], structure.mtime_ns)
    written = write_frame(
        chosen,
        turning,
        description=describe(recipe, path.name),
        taken=taken,
        token=token,
        durable=in_place,
        mode=path.stat().st_mode & 0o7777 if in_place else None,
    )
    return FrameReport(
        source=str(path),
        output=str(chosen),
        outcome="converted",
        shape=turning.shape,
        pixel_type=turning.pixel_type.name,
        pixels=turning.counts(),
        conversion_time=time.perf_counter() - started,
        finished=time.time(),
        recipe_hash=recipe.hash,
        bytes_in=structure.size,
        bytes_out=written,
    )


def write_frame(
    output: Path, turning: Turning, *, description: str, taken: str, token: str, durable: bool, mode: int | None = None
) -> int:
    """Write what comes out of `turning` as `output` and return the size of the file in bytes."""
    head = tiff_header(turning.shape, turning.pixel_type, description=description, software=software(), taken=taken)
    little = turning.pixel_type.newbyteorder("<")
    pixels = (block.astype(little, copy=False) for block in turning.blocks())
    return publish(output, chain([head], pixels), token=token, durable=durable, mode=mode)


def existing_provenance(path: Path) -> Provenance | None:
    """Return the provenance of the file at `path`, None if it is not ours."""
    return read_provenance(read_structure(path))


def _new_output(output: Path, recipe: Recipe) -> tuple[Path, str]:
    """Return where to write, and the reason to skip instead (empty: convert)."""
    assert isinstance(recipe.output, NewFile)  # noqa: S101 - the caller has asked
    if not output.exists():
        return output, ""
    match recipe.output.on_existing:
        case "skip":
            return output, f"{output} exists already"
        case "number":
            return _numbered(output), ""
        case "replace_own" if existing_provenance(output) is not None:
            return output, ""
    raise OutputExistsError(
        output,
        "a file that this program did not write",
        "a free name or an earlier output",
        'Move it away, or give the recipe on_existing="number" or "skip".',
    )


def _numbered(output: Path) -> Path:
    number = 1
    while (candidate := output.with_name(f"{output.stem}-{number:05d}{output.suffix}")).exists():
        number += 1
    return candidate


def _in_place_reason(path: Path, structure: Structure, recipe: Recipe) -> str:
    """Return why the file need not be converted again; refuse it if it was converted in another way."""
    provenance = read_provenance(structure)
    if provenance is None:
        return ""
    if provenance.matches(recipe):
        return "it carries the provenance of this recipe already"
    raise ConvertedDifferentlyError(
        path,
        "a file that was converted in place with another recipe",
        "a raw frame, or one converted with the same recipe",
        "Restore the raw frame first, or convert it to a new file.",
    )
