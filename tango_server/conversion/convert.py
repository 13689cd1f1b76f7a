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
from tango_server.conversion.files.ownership import Ownership, ownership_of
from tango_server.conversion.files.roots import ANYWHERE, NO_FIELDS, Roots, output_path
from tango_server.conversion.files.sandbox import status_of
from tango_server.conversion.image.buffers import thread_workspace
from tango_server.conversion.image.correction import Correction
from tango_server.conversion.image.orientation import Orientation
from tango_server.conversion.image.pixels import InexactPixelsError
from tango_server.conversion.image.transform import Turning, added_counts
from tango_server.conversion.on_existing import place
from tango_server.conversion.provenance import describe
from tango_server.conversion.sidecar import carry_sidecar, sidecar_error
from tango_server.conversion.tiff.kept_tags import NOTHING_KEPT, KeptTags, read_kept_tags
from tango_server.conversion.tiff.reader import Source, open_source, unusual_layout
from tango_server.conversion.tiff.record import acquired, read_provenance
from tango_server.conversion.tiff.structure import Structure
from tango_server.conversion.tiff.writer import counted, image_writer
from tango_server.messages import FrameReport
from tango_server.recipe import InPlace, NewFile, Recipe
from tango_server.recipe.corrections import Corrections

BACKUP_SUFFIX = ".orig"


def convert_file(
    source: str | Path,
    recipe: Recipe,
    *,
    output: Path | None = None,
    roots: Roots = ANYWHERE,
    fields: Mapping[str, object] = NO_FIELDS,
    token: str = "offline",  # noqa: S107 - not that kind of token
    job: str | None = None,
    corrections: Corrections | None = None,
) -> FrameReport:
    """Convert one file and return its report (`converted` or `skipped`, never `failed`).

    Parameters
    ----------
    source: the file to convert
    recipe: how to convert it
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
    path, target = _places(source, output, recipe, roots, fields)
    with open_source(path, thread_workspace(), roots) as opened:
        used = corrections or recipe.corrections
        frame, place_of = _Conversion(opened, target, recipe, roots, token, job, fields, used), recipe.output
        report = frame.in_place(place_of) if isinstance(place_of, InPlace) else frame.to_new_file(place_of)
    return report.model_copy(update={"conversion_time": time.perf_counter() - started, "finished": time.time()})


def _places(
    source: str | Path, output: Path | None, recipe: Recipe, roots: Roots, fields: Mapping[str, object]
) -> tuple[Path, Path]:
    """Return the resolved paths of source and output."""
    if output is not None and roots != ANYWHERE:  # they are opened without following links
        return Path(source), output
    path = roots.frame(source)
    return path, output_path(path, recipe, roots, fields) if output is None else roots.target(output)


@dataclass(slots=True)
class _Conversion:
    """One open source that is being converted."""

    source: Source
    target: Path
    recipe: Recipe
    roots: Roots
    token: str
    job: str | None
    fields: Mapping[str, object]
    corrections: Corrections | None

    def to_new_file(self, output: NewFile) -> FrameReport:
        structure = self.source.structure
        provenance = read_provenance(structure)
        if provenance is not None and not output.force:
            raise ConvertedDifferentlyError(
                self.source.path,
                f"not a raw frame but {provenance.summary}",
                "Convert the raw frame, or use force to convert this file again.",
            )
        attempt = Attempt(
            self.token,
            ownership=ownership_of(self.recipe, self.source.path),
            mtime_ns=structure.mtime_ns if output.preserve_mtime else None,
        )
        while True:
            chosen, replace, reason = place(self.target, output, self.source.path, self.roots, self.job)
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
        try:
            return {"sidecar": carry_sidecar(self.source.path, chosen, self.recipe, self.token, self.roots)}
        except ConversionError as error:
            return {"reason": sidecar_error(error)}

    def in_place(self, output: InPlace) -> FrameReport:
        path, structure = self.source.path, self.source.structure
        provenance = read_provenance(structure)
        if provenance is not None and provenance.matches(self.recipe):
            return self._skipped(path, "already converted in place with this recipe")
        if provenance is not None and not output.force:
            raise ConvertedDifferentlyError(
                path,
                f"cannot convert in place: not a raw frame but {provenance.summary}",
                "Restore the raw frame, convert to a new file, or use force to convert this file again.",
            )
        like = Ownership(like=self._attributes())
        kept = read_kept_tags(path, self.source.file, structure, backup=output.backup, ours=provenance is not None)
        if provenance is not None and provenance.original is not None:
            kept = replace(kept, original=provenance.original)
        if output.backup:
            self._back_up(like)
        attempt = Attempt(
            self.token,
            durable=True,
            ownership=like,
            mtime_ns=structure.mtime_ns if output.preserve_mtime else None,
        )
        return self._publish(path, attempt, kept)

    def _publish(self, chosen: Path, attempt: Attempt, kept: KeptTags = NOTHING_KEPT) -> FrameReport:
        source, pages = self.source, self.source.structure.pages
        turnings: list[Turning] = []
        corrections: list[Correction | None] = [None] * len(pages)
        if self.corrections is not None:
            about = partial(correction_of, source, fields=self.fields, roots=self.roots)
            corrections = [about(page, self.recipe, self.corrections) for page in pages]

        def turned() -> Iterator[Turning]:
            for page, image, correction in zip(pages, source.images(), corrections, strict=True):
                turnings.append(Turning(image, self.recipe, source.orientation(page), source.workspace, correction))
                yield turnings[-1]
                turnings[-1].forget()

        taken = acquired(pages[0], source.structure.mtime_ns)
        was = read_provenance(source.structure)  # the conversion of a placeholder, by force, is one too
        stands_in = was is not None and was.placeholder
        record = partial(describe, original=kept.original) if self.recipe.esperanto is None else history
        masters = corrections[0].masters if corrections[0] else ()
        described = partial(
            record, self.recipe, source.path, chosen, placeholder=stands_in, job=self.job, masters=masters
        )
        frame = self._esperanto(described, taken)
        try:
            if frame is not None:
                write = frame.writer(next(turned()))
            else:
                write = image_writer(turned(), len(pages), self.recipe, described(), taken, kept)
                if corrections[0] is not None:
                    write = counted(write, described(), lambda: described(pixels=added_counts(turnings)))
            in_place = chosen == source.path
            size = publish(chosen, _still_there(write, source, self.roots) if in_place else write, attempt, self.roots)
        except InexactPixelsError as error:
            raise UnsupportedImageError(source.path, str(error), "Choose an integer type, or float64.") from error
        notes = [note for correction in corrections[:1] if correction for note in correction.notes]
        return FrameReport(
            source=str(source.path),
            output=str(chosen),
            outcome="converted",
            reason=" ".join(filter(None, (unusual_layout(pages), noted(notes)))),
            shape=turnings[0].shape if frame is None else (frame.side, frame.side),
            pixel_type=turnings[0].pixel_type.name,
            pixels=added_counts(turnings),
            pages=len(pages),
            finished=0,
            recipe_hash=self.recipe.hash,
            bytes_in=source.structure.size,
            bytes_out=size,
            masters=masters,
        )

    def _esperanto(self, record: Callable[..., str], taken: str) -> EsperantoFrame | None:
        """Return the ESPERANTO frame, None for a TIFF."""
        wanted, pages, path = self.recipe.esperanto, self.source.structure.pages, self.source.path
        if wanted is None:
            return None
        if len(pages) > 1:
            raise UnsupportedImageError(
                path, f"an ESPERANTO frame has one page, this file has {len(pages)}", "Split the file into pages first."
            )
        turned = self.source.orientation(pages[0]).then(Orientation.of(self.recipe))
        return EsperantoFrame(path, wanted, self.fields, turned, pages[0].shape, taken, record, self.roots)

    def _attributes(self) -> FileAttributes:
        try:
            return FileAttributes.of(self.source.file.fileno())
        except OSError as error:
            raise OutputWriteError(
                self.source.path,
                f"cannot convert in place: its extended attributes cannot be read ({error.strerror})",
                "Convert it to a new file.",
            ) from error

    def _back_up(self, like: Ownership) -> None:
        """Keep the first original; a later one would already be converted."""
        backup = self.source.path.with_name(self.source.path.name + BACKUP_SUFFIX)

        try:
            attempt = Attempt(
                self.token,
                durable=True,
                exclusive=True,
                ownership=like,
                mtime_ns=self.source.structure.mtime_ns,
            )
            publish(backup, copy_of(self.source.file), attempt, self.roots)
        except FileExistsError:
            return

    def _skipped(self, output: Path, reason: str) -> FrameReport:
        return FrameReport(
            source=str(self.source.path),
            output=str(output),
            outcome="skipped",
            reason=reason,
            recipe_hash=self.recipe.hash,
            finished=0,
        )


def _exclusive(attempt: Attempt) -> Attempt:
    return Attempt(
        attempt.token, attempt.durable, exclusive=True, ownership=attempt.ownership, mtime_ns=attempt.mtime_ns
    )


def _still_there(write: Write, source: Source, roots: Roots) -> Write:
    """Return `write` with a final check that the file to replace is still the one that was read."""

    def write_and_look(file: BinaryIO) -> None:
        write(file)
        source.file.close()  # Windows cannot replace an open file
        status = status_of(source.path, roots.write)
        opened: Structure = source.structure
        if (status.st_ino, status.st_size, status.st_mtime_ns) != (opened.inode, opened.size, opened.mtime_ns):
            raise SourceChangedError(
                source.path,
                "the file was replaced during its conversion in place",
                "The new file was left unchanged. Convert it again when nothing writes to it.",
            )

    return write_and_look
