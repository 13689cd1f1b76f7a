"""Write the output of one frame, or of several that became one, with its sidecar; the same for both."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from tango_server.conversion.corrections.frame import noted
from tango_server.conversion.errors import ConversionError, ConvertedDifferentlyError, UnsupportedImageError
from tango_server.conversion.esperanto.experiment import Experiment
from tango_server.conversion.esperanto.frame import EsperantoFrame
from tango_server.conversion.esperanto.record import history
from tango_server.conversion.files.atomic_write import Attempt, Write, publish
from tango_server.conversion.files.ownership import ownership_of
from tango_server.conversion.files.roots import Roots
from tango_server.conversion.frame_source import FrameSource
from tango_server.conversion.image.orientation import Orientation
from tango_server.conversion.image.pixels import InexactPixelsError
from tango_server.conversion.image.transform import OutputImage, added_counts
from tango_server.conversion.on_existing import place
from tango_server.conversion.provenance import describe, tiff_time
from tango_server.conversion.sidecar import carry_sidecar, header_of, sidecar_error, write_sidecar
from tango_server.conversion.tiff.kept_tags import NOTHING_KEPT, KeptTags
from tango_server.conversion.tiff.writer import counted, image_writer
from tango_server.messages import FrameReport, Master, PixelCounts
from tango_server.recipe import NewFile, Recipe


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """What is written, and what is said about it.

    Parameters
    ----------
    images: yields the pages, each valid until the next; may be called again
    pages: how many there are
    marked: whether pixels are masked, so that the output says how many
    masters, notes: what corrected it
    combined: the facts about several frames, for the provenance; None for one
    experiment: the values of an ESPERANTO header, where they are not those of the source
    has_sidecar: whether the sidecar of a frame holds for the output, with new `sidecar_values` by section and key
    sidecar_of: that frame; by default the source
    beside: writes what else belongs beside the output, without which that is not complete; raises `ConversionError`

    """

    images: Callable[[], Iterator[OutputImage]]
    pages: int = 1
    marked: bool = False
    masters: tuple[Master, ...] = ()
    notes: tuple[str, ...] = ()
    combined: dict[str, Any] | None = None
    experiment: Experiment | None = None
    has_sidecar: bool = True
    sidecar_of: Path | None = None
    sidecar_values: Mapping[tuple[str, str], str] = field(default_factory=dict)
    beside: Callable[[Path, Attempt], None] = lambda _output, _attempt: None


@dataclass(frozen=True, slots=True, eq=False)
class Publication:
    """One output that is being written.

    Parameters
    ----------
    source: the frame, or the first one of several
    content: returns what is written; not called if the output is skipped
    target: the path of the output
    recipe, roots, token, job, fields: see `convert.convert_file`

    """

    source: FrameSource
    content: Callable[[], Content]
    target: Path
    recipe: Recipe
    roots: Roots
    token: str
    job: str | None
    fields: Mapping[str, object]

    def to_new_file(self, output: NewFile) -> FrameReport:
        """Write a new file and its sidecar, as `output` says; raise `ConversionError`."""
        location = self.source.location
        require_raw(self.source, output)
        attempt = Attempt(
            self.token,
            ownership=ownership_of(self.recipe, location.file),
            mtime_ns=self.source.state.mtime_ns if output.preserve_mtime else None,
        )
        while True:
            chosen, replaces, reason = place(self.target, output, location, self.roots, self.job)
            if reason:
                return self.skipped(chosen, reason)
            content = self.content()
            try:
                report = self.publish(chosen, content, replace(attempt, exclusive=not replaces))
            except FileExistsError:  # another process took the name: decide again
                continue
            content.beside(chosen, replace(attempt, mtime_ns=None))
            carried = self._carry_sidecar(chosen, content)
            reasons = filter(None, (report.reason, carried.get("reason")))
            return report.model_copy(update={**carried, "reason": " ".join(reasons)})

    def publish(
        self,
        chosen: Path,
        content: Content,
        attempt: Attempt,
        *,
        kept: KeptTags = NOTHING_KEPT,
        checked: Callable[[Write], Write] = lambda write: write,
    ) -> FrameReport:
        """Write the file `chosen` with the tags `kept`; `checked` adds a check to the function that writes it."""
        source, recipe = self.source, self.recipe
        images: list[OutputImage] = []

        def noted_images() -> Iterator[OutputImage]:
            for image in content.images():
                images.append(image)
                yield image

        taken = source.header.taken or tiff_time(source.state.mtime_ns / 1e9)
        was = source.provenance  # the conversion of a placeholder, by force, is one too
        record = partial(describe, original=kept.original) if recipe.esperanto is None else history
        described = partial(
            record, recipe, source.location, chosen, job=self.job, combined=content.combined,
            placeholder=was is not None and was.placeholder, masters=content.masters,
        )  # fmt: skip
        frame = self._esperanto(described, taken, content)
        try:
            if frame is not None:
                write = frame.writer(next(noted_images()))
            elif not content.marked:
                write = image_writer(noted_images(), content.pages, recipe, described(), taken, kept)
            else:
                text = described(pixels=PixelCounts())
                write = image_writer(noted_images(), content.pages, recipe, text, taken, kept)
                write = counted(write, text, lambda: described(pixels=added_counts(images)))
            size = publish(chosen, checked(write), attempt, self.roots)
        except InexactPixelsError as error:
            raise UnsupportedImageError(
                source.location.file, str(error), "Choose an integer type, or float64."
            ) from error
        return FrameReport(
            source=source.location.path,
            frame=source.location.index,
            output=str(chosen),
            outcome="converted",
            reason=" ".join(filter(None, (source.note, noted(content.notes)))),
            shape=images[0].shape if frame is None else (frame.side, frame.side),
            pixel_type=images[0].pixel_type.name,
            pixels=added_counts(images),
            pages=content.pages,
            finished=0,
            recipe_hash=recipe.hash,
            bytes_in=source.bytes_in,
            bytes_out=size,
            masters=content.masters,
            metadata=source.header.nexus_fields(),
        )

    def skipped(self, output: Path, reason: str) -> FrameReport:
        """Return the report of an output that is not written."""
        return FrameReport(
            source=self.source.location.path,
            frame=self.source.location.index,
            output=str(output),
            outcome="skipped",
            reason=reason,
            recipe_hash=self.recipe.hash,
            finished=0,
        )

    def _carry_sidecar(self, chosen: Path, content: Content) -> dict[str, str]:
        """Copy the sidecar and return fields of the report: the image is written, so an error here is no failure."""
        if self.recipe.esperanto is not None or not content.has_sidecar:  # its values are in the header
            return {}
        source, recipe, token = self.source, self.recipe, self.token
        try:
            frame = content.sidecar_of or source.location.file
            carried = carry_sidecar(frame, chosen, recipe, token, self.roots, values=content.sidecar_values)
            if carried == "absent" and not source.state.sidecar_expected:
                carried = write_sidecar(source, chosen, recipe, token, self.roots)
        except ConversionError as error:
            return {"reason": sidecar_error(error)}
        return {"sidecar": carried}

    def _esperanto(self, record: Callable[..., str], taken: str, content: Content) -> EsperantoFrame | None:
        """Return the ESPERANTO frame, None for a TIFF."""
        wanted, source = self.recipe.esperanto, self.source
        if wanted is None:
            return None
        path, image = source.location.file, source.images[0]
        if content.pages > 1:
            raise UnsupportedImageError(
                path,
                f"an ESPERANTO frame has one page, this file has {content.pages}",
                "Split the file into pages first.",
            )
        turned = image.stored.then(Orientation.of(self.recipe))
        header = header_of(source, self.roots)
        return EsperantoFrame(
            path, wanted, self.fields, header, turned, image.shape, taken, record, self.roots, content.experiment
        )


def require_raw(source: FrameSource, output: NewFile) -> None:
    """Refuse a frame that is itself an output, unless `output` forces it."""
    if source.provenance is not None and not output.force:
        raise ConvertedDifferentlyError(
            source.location.file,
            f"not a raw frame but {source.provenance.summary}",
            "Convert the raw frame, or use force to convert this file again.",
        )
