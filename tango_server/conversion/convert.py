"""One file, one recipe, one report."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from tango_server.conversion.corrections.frame import correction_of, noted
from tango_server.conversion.errors import (
    ConversionError,
    ConvertedDifferentlyError,
    OutputWriteError,
    SourceChangedError,
    UnsupportedImageError,
)
from tango_server.conversion.esperanto.frame import EsperantoFrame
from tango_server.conversion.esperanto.record import history
from tango_server.conversion.files.atomic_write import Attempt, Write, copy_of, publish
from tango_server.conversion.files.file_attributes import FileAttributes
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.ownership import Ownership, ownership_of
from tango_server.conversion.files.roots import ANYWHERE, NO_FIELDS, Roots, output_path
from tango_server.conversion.files.sandbox import status_of
from tango_server.conversion.formats import open_frame, require_single
from tango_server.conversion.frame_source import FrameSource
from tango_server.conversion.image.buffers import thread_workspace
from tango_server.conversion.image.orientation import Orientation
from tango_server.conversion.image.pixels import InexactPixelsError
from tango_server.conversion.image.transform import Turning, added_counts
from tango_server.conversion.on_existing import place
from tango_server.conversion.provenance import describe, tiff_time
from tango_server.conversion.sidecar import carry_sidecar, header_of, sidecar_error, write_sidecar
from tango_server.conversion.tiff.kept_tags import NOTHING_KEPT, KeptTags, read_kept_tags
from tango_server.conversion.tiff.reader import TiffFile, open_tiff
from tango_server.conversion.tiff.writer import counted, image_writer
from tango_server.messages import FrameReport, PixelCounts
from tango_server.recipe import InPlace, NewFile, Recipe
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
    named = source if isinstance(source, FrameLocation) else FrameLocation.of(source, frame)
    location, target = _places(named, output, recipe, roots, fields)
    place = recipe.output
    about = partial(
        _Conversion, recipe=recipe, roots=roots, token=token, job=job, fields=fields,
        corrections=corrections or recipe.corrections,
    )  # fmt: skip
    if isinstance(place, InPlace):
        require_single(location)
        with open_tiff(location.file, thread_workspace(), roots) as tiff:
            report = about(tiff.source, location.file).in_place(place, tiff)
    else:
        with open_frame(location, thread_workspace(), roots) as opened:
            report = about(opened, target).to_new_file(place)
    return report.model_copy(update={"conversion_time": time.perf_counter() - started, "finished": time.time()})


def _places(
    location: FrameLocation, output: Path | None, recipe: Recipe, roots: Roots, fields: Mapping[str, object]
) -> tuple[FrameLocation, Path]:
    """Return the location with a resolved path, and the path of the output."""
    if output is not None and roots != ANYWHERE:  # they are opened without following links
        return location, output
    location = replace(location, file=roots.frame(location.file))
    return location, output_path(location, recipe, roots, fields) if output is None else roots.target(output)


@dataclass(slots=True)
class _Conversion:
    """One open source that is being converted."""

    source: FrameSource
    target: Path
    recipe: Recipe
    roots: Roots
    token: str
    job: str | None
    fields: Mapping[str, object]
    corrections: Corrections | None

    def to_new_file(self, output: NewFile) -> FrameReport:
        location, provenance = self.source.location, self.source.provenance
        if provenance is not None and not output.force:
            raise ConvertedDifferentlyError(
                location.file,
                f"not a raw frame but {provenance.summary}",
                "Convert the raw frame, or use force to convert this file again.",
            )
        attempt = Attempt(
            self.token,
            ownership=ownership_of(self.recipe, location.file),
            mtime_ns=self.source.state.mtime_ns if output.preserve_mtime else None,
        )
        while True:
            chosen, replace, reason = place(self.target, output, location, self.roots, self.job)
            if reason:
                return self._skipped(chosen, reason)
            try:
                report = self._publish(chosen, attempt if replace else _exclusive(attempt))
            except FileExistsError:  # another process took the name: decide again
                continue
            carried = self._carry_sidecar(chosen)
            if report.reason and "reason" in carried:
                carried["reason"] = f"{report.reason} {carried['reason']}"
            return report.model_copy(update=carried)

    def _carry_sidecar(self, chosen: Path) -> dict[str, str]:
        """Copy the sidecar and return fields of the report: the image is written, so an error here is no failure."""
        if self.recipe.esperanto is not None:  # its values are in the header
            return {}
        source, recipe, token = self.source, self.recipe, self.token
        try:
            carried = carry_sidecar(source.location.file, chosen, recipe, token, self.roots)
            if carried == "absent" and not source.state.sidecar_expected:
                carried = write_sidecar(source, chosen, recipe, token, self.roots)
        except ConversionError as error:
            return {"reason": sidecar_error(error)}
        return {"sidecar": carried}

    def in_place(self, output: InPlace, tiff: TiffFile) -> FrameReport:
        path, structure, provenance = tiff.path, tiff.structure, self.source.provenance
        if provenance is not None and provenance.matches(self.recipe):
            return self._skipped(path, "already converted in place with this recipe")
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
            _back_up(tiff, like, self.token, self.roots)
        attempt = Attempt(
            self.token,
            durable=True,
            ownership=like,
            mtime_ns=structure.mtime_ns if output.preserve_mtime else None,
        )
        return self._publish(path, attempt, kept, tiff)

    def _publish(
        self, chosen: Path, attempt: Attempt, kept: KeptTags = NOTHING_KEPT, in_place: TiffFile | None = None
    ) -> FrameReport:
        """Write the output; `in_place`: it replaces this file."""
        source, recipe = self.source, self.recipe
        turnings: list[Turning] = []
        corrections = [
            correction_of(source, image, recipe, self.corrections, fields=self.fields, roots=self.roots)
            for image in source.images
        ]
        correction = corrections[0]

        def turned() -> Iterator[Turning]:
            for info, image, correction in zip(source.images, source.read(), corrections, strict=True):
                turnings.append(Turning(image, recipe, info.stored, source.workspace, correction))
                yield turnings[-1]
                turnings[-1].forget()

        taken = source.header.taken or tiff_time(source.state.mtime_ns / 1e9)
        was = source.provenance  # the conversion of a placeholder, by force, is one too
        record = partial(describe, original=kept.original) if recipe.esperanto is None else history
        described = partial(
            record, recipe, source.location, chosen, job=self.job,
            placeholder=was is not None and was.placeholder, masters=correction.masters if correction else (),
        )  # fmt: skip
        frame = self._esperanto(described, taken)
        try:
            if frame is not None:
                write = frame.writer(next(turned()))
            elif correction is None or not (correction.marks or recipe.corrections):
                write = image_writer(turned(), len(corrections), recipe, described(), taken, kept)
            else:
                text = described(pixels=PixelCounts())
                write = image_writer(turned(), len(corrections), recipe, text, taken, kept)
                write = counted(write, text, lambda: described(pixels=added_counts(turnings)))
            if in_place is not None:
                write = _still_there(write, in_place, self.roots)
            size = publish(chosen, write, attempt, self.roots)
        except InexactPixelsError as error:
            raise UnsupportedImageError(
                source.location.file, str(error), "Choose an integer type, or float64."
            ) from error
        notes = correction.notes if correction else ()
        return FrameReport(
            source=source.location.path,
            frame=source.location.index,
            output=str(chosen),
            outcome="converted",
            reason=" ".join(filter(None, (source.note, noted(notes)))),
            shape=turnings[0].shape if frame is None else (frame.side, frame.side),
            pixel_type=turnings[0].pixel_type.name,
            pixels=added_counts(turnings),
            pages=len(corrections),
            finished=0,
            recipe_hash=recipe.hash,
            bytes_in=source.state.size,
            bytes_out=size,
            masters=correction.masters if correction else (),
            metadata=source.header.nexus_fields(),
        )

    def _esperanto(self, record: Callable[..., str], taken: str) -> EsperantoFrame | None:
        """Return the ESPERANTO frame, None for a TIFF."""
        wanted, source = self.recipe.esperanto, self.source
        if wanted is None:
            return None
        path, image = source.location.file, source.images[0]
        if len(source.images) > 1:
            raise UnsupportedImageError(
                path,
                f"an ESPERANTO frame has one page, this file has {len(source.images)}",
                "Split the file into pages first.",
            )
        turned = image.stored.then(Orientation.of(self.recipe))
        header = header_of(source, self.roots)
        return EsperantoFrame(path, wanted, self.fields, header, turned, image.shape, taken, record, self.roots)

    def _skipped(self, output: Path, reason: str) -> FrameReport:
        return FrameReport(
            source=self.source.location.path,
            frame=self.source.location.index,
            output=str(output),
            outcome="skipped",
            reason=reason,
            recipe_hash=self.recipe.hash,
            finished=0,
        )


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


def _exclusive(attempt: Attempt) -> Attempt:
    return Attempt(
        attempt.token, attempt.durable, exclusive=True, ownership=attempt.ownership, mtime_ns=attempt.mtime_ns
    )


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
