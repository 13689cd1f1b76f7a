"""The frames of a group: what is known of each before its pixels are combined, and whether they fit together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tango_server.conversion.errors import GroupUnfitError
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.frame_header import FrameHeader
from tango_server.conversion.frame_source import FrameSource
from tango_server.messages import Master
from tango_server.recipe import Recipe
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
    has_rows: bool
    is_repaired: bool
    can_turn_later: bool
    """Whether its correction is the same in every geometry."""

    @property
    def kind(self) -> np.dtype[Any]:
        """The native pixel type after the corrections."""
        return self.work or self.source.images[0].pixel_type

    @property
    def has_dark(self) -> bool:
        """Whether its dark is subtracted by us."""
        return any(master.kind == "dark" for master in self.masters)


def require_alike(members: Sequence[Checked], recipe: Recipe) -> None:
    """Raise `GroupUnfitError` for the first member that has several pages, or does not fit the first one."""
    first = members[0]
    for each in members:
        if (pages := len(each.source.images)) > 1:
            raise GroupUnfitError(
                each.member.location.file,
                f"cannot combine it: it has {pages} pages, and each frame of a group has one image",
                "Split it into files of one page each.",
            )
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
