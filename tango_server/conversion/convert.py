"""One file, one recipe, one report."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from tango_server.conversion.corrections.frame import correction_of
from tango_server.conversion.errors import (
    ConvertedDifferentlyError,
    GroupUnfitError,
    OutputWriteError,
    SourceChangedError,
)
from tango_server.conversion.files.atomic_write import Attempt, Write, copy_of, publish
from tango_server.conversion.files.file_attributes import FileAttributes
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.ownership import Ownership
from tango_server.conversion.files.roots import ANYWHERE, NO_FIELDS, Roots, output_path
from tango_server.conversion.files.sandbox import status_of
from tango_server.conversion.formats import open_frame, require_single
from tango_server.conversion.frame_source import FrameSource
from tango_server.conversion.image.buffers import thread_workspace
from tango_server.conversion.image.transform import Turning
from tango_server.conversion.publishing import Content, Publication
from tango_server.conversion.tiff.kept_tags import read_kept_tags
from tango_server.conversion.tiff.reader import TiffFile, open_tiff
from tango_server.messages import FrameReport
from tango_server.recipe import InPlace, Recipe
from tango_server.recipe.corrections import Corrections

BACKUP_SUFFIX = ".orig"


def convert_file(
    source: str | Path | FrameLocation,
    recipe: Recipe,
    *,
    frame: int | None = None,
    output: Path | None = None,
    roots: Roots = ANYWHERE,
    fields: Mapping[str, object] = NO_FIELDS,
    token: str = "offline",  # noqa: S107 - not that kind of token
    job: str | None = None,
    corrections: Corrections | None = None,
) -> FrameReport:
    """Convert one frame and return its report (`converted` or `skipped`, never `failed`).

    Parameters
    ----------
    source: the file to convert, with `::/data/set` for one of several in an HDF5 file; or the location of the frame
    recipe: how to convert it
    frame: index in a file of several frames; None for a file that is one frame
    output: path of the output; by default the recipe decides
    roots: the folders that may be read and written; by default all. If `output` is given too, both paths must
        already be resolved, and a path that has become a symbolic link since is refused
    fields: run, seq_num and metadata of the frame, for a template of the output's name and for formats that hold them
    token: part of the temporary file's name, to find what a killed process leaves
    job: the unique id of a server's job, for the output's provenance: a later attempt at the same job replaces the
        output of an earlier one, and no other file
    corrections: the recipe's, with the paths that a server resolved when it accepted the frame; by default as they are

    Raises
    ------
    ConversionError
        one of its subclasses. The source is unchanged then, and there is no partial output.
    """
    started = time.perf_counter()
    if recipe.combine is not None:
        raise GroupUnfitError(str(source), "the recipe combines frames, and this is one", "Use convert_group.")
    named = source if isinstance(source, FrameLocation) else FrameLocation.of(source, frame)
    location, target = _places(named, output, recipe, roots, fields)
    place, corrections = recipe.output, corrections or recipe.corrections

    def publication(opened: FrameSource, target: Path) -> Publication:
        content = partial(_content, opened, recipe, corrections, fields, roots)
        return Publication(opened, content, target, recipe, roots, token, job, fields)

    if isinstance(place, InPlace):
        require_single(location)
        with open_tiff(location.file, thread_workspace(), roots) as tiff:
            report = _in_place(publication(tiff.source, location.file), place, tiff)
    else:
        with open_frame(location, thread_workspace(), roots) as opened:
            report = publication(opened, target).to_new_file(place)
    return report.model_copy(update={"conversion_time": time.perf_counter() - started, "finished": time.time()})


def _places(
    location: FrameLocation, output: Path | None, recipe: Recipe, roots: Roots, fields: Mapping[str, object]
) -> tuple[FrameLocation, Path]:
    """Return the location with a resolved path, and the path of the output."""
    if output is not None and roots != ANYWHERE:  # they are opened without following links
        return location, output
    location = replace(location, file=roots.frame(location.file))
    return location, output_path(location, recipe, roots, fields) if output is None else roots.target(output)


def _content(
    source: FrameSource,
    recipe: Recipe,
    corrections: Corrections | None,
    fields: Mapping[str, object],
    roots: Roots,
) -> Content:
    """Return all pages of an open frame, corrected and turned."""
    found = [correction_of(source, image, recipe, corrections, fields=fields, roots=roots) for image in source.images]

    def turned() -> Iterator[Turning]:
        for info, image, correction in zip(source.images, source.read(), found, strict=True):
            turning = Turning(image, recipe, info.stored, source.workspace, correction)
            yield turning
            turning.forget()

    first = found[0]
    if first is None:
        return Content(turned, len(found))
    marked = first.marks or recipe.corrections is not None
    return Content(turned, len(found), marked, first.masters, first.notes)


def _in_place(publication: Publication, output: InPlace, tiff: TiffFile) -> FrameReport:
    path, structure, provenance = tiff.path, tiff.structure, publication.source.provenance
    recipe, token, roots = publication.recipe, publication.token, publication.roots
    if provenance is not None and provenance.matches(recipe):
        return publication.skipped(path, "already converted in place with this recipe")
    if provenance is not None and not output.force:
        raise ConvertedDifferentlyError(
            path,
            f"cannot convert in place: not a raw frame but {provenance.summary}",
            "Restore the raw frame, convert to a new file, or use force to convert this file again.",
        )
    like = Ownership(like=_attributes(tiff))
    kept = read_kept_tags(path, tiff.file, structure, backup=output.backup, ours=provenance is not None)
    if provenance is not None and provenance.original is not None:
        kept = replace(kept, original=provenance.original)
    if output.backup:
        _back_up(tiff, like, token, roots)
    attempt = Attempt(
        token, durable=True, ownership=like, mtime_ns=structure.mtime_ns if output.preserve_mtime else None
    )
    check = partial(_still_there, tiff=tiff, roots=roots)
    return publication.publish(path, publication.content(), attempt, kept=kept, checked=check)


def _attributes(tiff: TiffFile) -> FileAttributes:
    try:
        return FileAttributes.of(tiff.file.fileno())
    except OSError as error:
        raise OutputWriteError(
            tiff.path,
            f"cannot convert in place: its extended attributes cannot be read ({error.strerror})",
            "Convert it to a new file.",
        ) from error


def _back_up(tiff: TiffFile, like: Ownership, token: str, roots: Roots) -> None:
    """Keep the first original; a later one would already be converted."""
    backup = tiff.path.with_name(tiff.path.name + BACKUP_SUFFIX)
    attempt = Attempt(token, durable=True, exclusive=True, ownership=like, mtime_ns=tiff.structure.mtime_ns)
    try:
        publish(backup, copy_of(tiff.file), attempt, roots)
    except FileExistsError:
        return


def _still_there(write: Write, tiff: TiffFile, roots: Roots) -> Write:
    """Return `write` with a final check that the file to replace is still the one that was read."""

    def write_and_look(file: BinaryIO) -> None:
        write(file)
        tiff.file.close()  # Windows cannot replace an open file
        status = status_of(tiff.path, roots.write)
        if (status.st_ino, status.st_size, status.st_mtime_ns) != tiff.structure.file_state.identity:
            raise SourceChangedError(
                tiff.path,
                "the file was replaced during its conversion in place",
                "The new file was left unchanged. Convert it again when nothing writes to it.",
            )

    return write_and_look
