"""Read the members of a group: each once to check it, and then all to combine them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tango_server.conversion.combining.combine import Frames
from tango_server.conversion.combining.members import Checked, Member
from tango_server.conversion.corrections.frame import correction_of
from tango_server.conversion.errors import ConversionError, SourceChangedError
from tango_server.conversion.files.roots import Roots
from tango_server.conversion.formats import open_frame
from tango_server.conversion.frame_source import FrameSource
from tango_server.conversion.image.buffers import Workspace, thread_workspace
from tango_server.conversion.image.correction import Correction
from tango_server.conversion.image.orientation import AS_STORED, Orientation
from tango_server.conversion.image.pixels import Image
from tango_server.conversion.image.transform import Turning
from tango_server.conversion.publishing import require_raw
from tango_server.conversion.sidecar import header_of
from tango_server.recipe import NewFile, Recipe

_MOST_OPEN = 32
"""Files that are read by rows together."""


class MemberFailed(Exception):  # noqa: N818 - it becomes a problem of its group
    """A member cannot be read: its number in the group, and why."""

    def __init__(self, number: int, error: ConversionError) -> None:
        super().__init__(number, error)
        self.number = number
        self.error = error


def check_member(number: int, member: Member, recipe: Recipe, output: NewFile, roots: Roots) -> Checked:
    """Return what is known of a member; raise `MemberFailed` if it cannot be converted."""
    with _blamed(number), open_frame(member.location, Workspace(), roots) as source:
        require_raw(source, output)
        found = [each for each in _corrections(source, member, recipe, roots) if each is not None]
        return Checked(
            number=number,
            member=member,
            source=replace(source, read=lambda: iter(()), rows=None, own_mask=None),  # the masks of many are large
            header=header_of(source, roots),
            masters=tuple(dict.fromkeys(master for each in found for master in each.masters)),
            notes=tuple(dict.fromkeys(note for each in found for note in each.notes)),
            work=found[0].work if found else None,
            counts_overexposed=any(each.limit is not None for each in found),
            has_rows=source.rows is not None,
            is_repaired=any(each.repair for each in found),
            can_turn_later=not any(each.repair or each.work or len(each.masked) for each in found),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """Members that are read to be combined; `overexposed` gets the pixels that are, in the geometry of `shape`.

    Where no correction depends on the place of a pixel, they are combined as stored, and the result is turned: once
    instead of each. Where no row needs others, they are read by rows.
    """

    members: Sequence[Checked]
    recipe: Recipe
    roots: Roots

    @property
    def orientation(self) -> Orientation:
        """The orientation of the output relative to what is combined."""
        return self._whole if self._turns_later else AS_STORED

    def frames(self, overexposed: NDArray[np.bool_]) -> Frames:
        """Return the frames to combine."""
        return Frames(
            count=sum(len(each.source.images) for each in self.members),
            shape=self.shape,
            kind=self.members[0].kind,
            read=lambda together: self._read(together, overexposed),
            by_rows=self._by_rows,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of what is combined."""
        shape = self.members[0].source.images[0].shape
        return shape if self._turns_later else self._whole.shape(shape)

    @property
    def _whole(self) -> Orientation:
        return self.members[0].source.images[0].stored.then(Orientation.of(self.recipe))

    @property
    def _turns_later(self) -> bool:
        return all(each.can_turn_later for each in self.members)

    @property
    def _by_rows(self) -> bool:
        fit = all(each.has_rows and not each.is_repaired for each in self.members)
        return fit and (self._turns_later or not self._whole.transpose)

    def _read(self, together: int, overexposed: NDArray[np.bool_]) -> Iterator[list[Turning]]:
        """Yield the frames in their order, at most `together` at a time; the pages of a file come one by one."""
        by_rows = self._by_rows
        if by_rows:
            together = _MOST_OPEN
        for start in range(0, len(self.members), together):
            with ExitStack() as opened:
                sources = []
                for slot, each in enumerate(self.members[start : start + together]):
                    with _blamed(each.number):
                        workspace = thread_workspace(0 if by_rows else slot)
                        sources.append(
                            (each, opened.enter_context(open_frame(each.member.location, workspace, self.roots)))
                        )
                pages = (self._pages(*each, overexposed) for each in sources)
                if all(len(source.images) == 1 for _, source in sources):
                    yield [turning for each in pages for turning in each]
                else:
                    yield from ([turning] for each in pages for turning in each)

    def _pages(self, each: Checked, source: FrameSource, overexposed: NDArray[np.bool_]) -> Iterator[Turning]:
        recipe, stored = self.recipe, source.images[0].stored
        if self._turns_later:
            recipe, stored = recipe.model_copy(update={"rotation": 0, "flip": "none"}), AS_STORED
        with _blamed(each.number):
            if source.state.identity != each.source.state.identity:
                raise SourceChangedError(
                    source.location.file, "the file was replaced while it was combined", "Combine the frames again."
                )
            rows = _blaming(source.rows, each.number) if self._by_rows and source.rows is not None else None
            images = source.read() if rows is None else _blank(source)
            corrections = _corrections(source, each.member, self.recipe, self.roots)
            for image, correction in zip(images, corrections, strict=True):
                yield Turning(image, recipe, stored, source.workspace, correction, overexposed=overexposed, rows=rows)


def _corrections(source: FrameSource, member: Member, recipe: Recipe, roots: Roots) -> list[Correction | None]:
    corrections = member.corrections or recipe.corrections
    return [
        correction_of(source, image, recipe, corrections, fields=member.fields, roots=roots) for image in source.images
    ]


def _blank(source: FrameSource) -> Iterator[Image]:
    """Yield an image without memory that has shape and type of the frame."""
    yield np.broadcast_to(np.empty((), source.images[0].pixel_type), source.images[0].shape)


def _blaming(rows: Callable[[slice], Image], number: int) -> Callable[[slice], Image]:
    def read(wanted: slice) -> Image:
        with _blamed(number):
            return rows(wanted)

    return read


@contextmanager
def _blamed(number: int) -> Iterator[None]:
    try:
        yield
    except ConversionError as error:
        raise MemberFailed(number, error) from error
