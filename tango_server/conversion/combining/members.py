"""The frames of a group: what is known of each before its pixels are combined, and whether they fit together."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tango_server.conversion.corrections.frame import correction_of
from tango_server.conversion.errors import ConversionError, GroupUnfitError, SourceChangedError
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import ANYWHERE, Roots
from tango_server.conversion.formats import open_frame
from tango_server.conversion.frame_header import FrameHeader
from tango_server.conversion.frame_source import FrameSource
from tango_server.conversion.image.buffers import Workspace, thread_workspace
from tango_server.conversion.image.correction import Correction
from tango_server.conversion.image.orientation import Orientation
from tango_server.conversion.image.transform import Turning
from tango_server.conversion.publishing import require_raw
from tango_server.conversion.sidecar import header_of
from tango_server.messages import Master
from tango_server.recipe import NewFile, Recipe
from tango_server.recipe.combine import Method
from tango_server.recipe.corrections import Corrections


@dataclass(frozen=True, slots=True)
class Member:
    """One frame of a group.

    Parameters
    ----------
    location: where it is
    fields: its run, seq_num and metadata
    corrections: the recipe's, with the paths that a server resolved; by default as they are
    problem: why it is missing or failed, if that is known already

    """

    location: FrameLocation
    fields: Mapping[str, object] = field(default_factory=dict)
    corrections: Corrections | None = None
    problem: str = ""


class MemberFailed(Exception):  # noqa: N818 - it becomes a problem of its group
    """A member cannot be read: its number in the group, and why."""

    def __init__(self, number: int, error: ConversionError) -> None:
        super().__init__(number, error)
        self.number = number
        self.error = error


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """A member that was opened and can be combined; `source` is closed again, `number` counts from 0 in the group."""

    number: int
    member: Member
    source: FrameSource
    header: FrameHeader
    masters: tuple[Master, ...]
    notes: tuple[str, ...]
    work: np.dtype[Any] | None
    counts_overexposed: bool

    @property
    def kind(self) -> np.dtype[Any]:
        """The native pixel type after the corrections."""
        return self.work or self.source.images[0].pixel_type

    @property
    def has_dark(self) -> bool:
        """Whether its dark is subtracted by us."""
        return any(master.kind == "dark" for master in self.masters)


@dataclass(frozen=True, slots=True)
class Reading:
    """How members are read: see `convert.convert_file`."""

    recipe: Recipe
    output: NewFile
    roots: Roots = ANYWHERE

    def checked(self, number: int, member: Member) -> Checked:
        """Return what is known of a member; raise `MemberFailed` if it cannot be converted."""
        with self._opened(number, member, Workspace()) as source, _blamed(number):
            require_raw(source, self.output)
            corrections = self._corrections(source, member)
            found = [each for each in corrections if each is not None]
            masters = dict.fromkeys(master for each in found for master in each.masters)
            notes = dict.fromkeys(note for each in found for note in each.notes)
            closed = replace(source, read=lambda: iter(()), own_mask=None)  # the masks of many frames are large
            return Checked(
                number, member, closed, header_of(source, self.roots), tuple(masters), tuple(notes),
                corrections[0].work if corrections[0] else None,
                counts_overexposed=any(each is not None and each.limit is not None for each in corrections),
            )  # fmt: skip

    def turnings(
        self, members: Sequence[Checked], together: int, overexposed: NDArray[np.bool_] | None = None
    ) -> Iterator[list[Turning]]:
        """Yield the frames of members in their order, so many `together`, valid until the next.

        The pages of a file come one by one. Raises `MemberFailed`.
        """
        for start in range(0, len(members), together):
            with ExitStack() as opened:
                several = members[start : start + together]
                sources = [opened.enter_context(self._reopened(each, slot)) for slot, each in enumerate(several)]
                pages = [self._pages(*pair, overexposed) for pair in zip(several, sources, strict=True)]
                if all(len(source.images) == 1 for source in sources):
                    yield [turning for each in pages for turning in each]
                else:
                    yield from ([turning] for each in pages for turning in each)

    def _reopened(self, each: Checked, slot: int) -> AbstractContextManager[FrameSource]:
        return self._opened(each.number, each.member, thread_workspace(slot))

    def _pages(self, each: Checked, source: FrameSource, overexposed: NDArray[np.bool_] | None) -> Iterator[Turning]:
        with _blamed(each.number):
            if source.state.identity != each.source.state.identity:
                raise SourceChangedError(
                    source.location.file, "the file was replaced while it was combined", "Combine the frames again."
                )
            corrections = self._corrections(source, each.member)
            for info, image, correction in zip(source.images, source.read(), corrections, strict=True):
                yield Turning(image, self.recipe, info.stored, source.workspace, correction, overexposed=overexposed)

    @contextmanager
    def _opened(self, number: int, member: Member, workspace: Workspace) -> Iterator[FrameSource]:
        with ExitStack() as opened:
            with _blamed(number):
                source = opened.enter_context(open_frame(member.location, workspace, self.roots))
            yield source

    def _corrections(self, source: FrameSource, member: Member) -> list[Correction | None]:
        corrections = member.corrections or self.recipe.corrections
        return [
            correction_of(source, image, self.recipe, corrections, fields=member.fields, roots=self.roots)
            for image in source.images
        ]


@contextmanager
def _blamed(number: int) -> Iterator[None]:
    try:
        yield
    except ConversionError as error:
        raise MemberFailed(number, error) from error


def require_alike(members: Sequence[Checked], recipe: Recipe) -> None:
    """Raise `GroupUnfitError` for the first member that does not fit the first one."""
    first = members[0]
    for each in members:
        if found := _unlike(first, each, recipe):
            path = first.member.location
            raise GroupUnfitError(
                each.member.location.file, f"cannot combine it with {path}: {found}", "Combine frames that are alike."
            )


def _unlike(first: Checked, other: Checked, recipe: Recipe) -> str:
    """Return how another member differs; empty if it fits."""
    mine = first.source.images[0]
    for image in (*first.source.images, *other.source.images):
        if (image.shape, image.pixel_type, image.stored) != (mine.shape, mine.pixel_type, mine.stored):
            sizes = [f"{' x '.join(map(str, each.shape))} pixels of {each.pixel_type.name}" for each in (image, mine)]
            return " instead of ".join(sizes) if sizes[0] != sizes[1] else "another orientation tag"
    adds = recipe.combine is not None and recipe.combine.method == "sum"
    summed, off = (first.header.summed, other.header.summed), (first.header.dark_is_off, other.header.dark_is_off)
    findings = (
        (not adds and None not in summed and summed[0] != summed[1], f"{summed[1]} summed exposures, not {summed[0]}"),
        (first.has_dark != other.has_dark, "a dark is subtracted from one of them only"),
        (None not in off and off[0] != off[1], "the dark was subtracted already from one of them only"),
        (first.kind != other.kind, f"{other.kind} after the corrections, not {first.kind}"),
    )
    return first.header.unlike(other.header) or next((text for is_so, text in findings if is_so), "")


def turned_shape(member: Checked, recipe: Recipe) -> tuple[int, int]:
    """Return rows and columns of the output."""
    image = member.source.images[0]
    return image.stored.then(Orientation.of(recipe)).shape(image.shape)


@dataclass(frozen=True, slots=True)
class Exposures:
    """The exposures of a combination: those of its members together for a sum, else those of the first one.

    `header`: what the file of the first one states, changed accordingly. `summed`: the number of exposures for the
    sidecar, None if that stays as it is. `known`: whether the sidecar of the first one can say it.
    """

    header: FrameHeader
    summed: float | None = None
    known: bool = True

    @classmethod
    def of(cls, members: Sequence[Checked], method: Method) -> "Exposures":
        """Return the exposures of members."""
        own = members[0].source.header
        if method != "sum":
            return cls(own)
        pages = [len(each.source.images) for each in members]

        def added(values: list[float | None]) -> float | None:
            if None in values:
                return None
            return sum(value * count for value, count in zip(values, pages, strict=True) if value is not None)

        headers = [each.source.header for each in members]
        stated = replace(
            own,
            exposure=added([each.exposure for each in headers]),
            summed=added([each.summed for each in headers]),
            saturation=added([each.saturation for each in headers]),
        )
        summed = added([each.header.summed for each in members])
        in_sidecars = [each.header.exposure is not None and each.source.header.exposure is None for each in members]
        return cls(stated, summed if any(in_sidecars) else None, known=summed is not None or not any(in_sidecars))
