"""Several frames, one recipe, one report.

A group is combined by one call, from the files of its members in their order; nothing is kept before.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tango_server.conversion.combining.bands import can_clip
from tango_server.conversion.combining.combine import (
    BAND_BYTES,
    Combination,
    CombinedImage,
    OnProgress,
    combined_type,
    no_progress,
)
from tango_server.conversion.combining.earlier_outputs import withdraw, withdraw_complete, withdraw_fewer
from tango_server.conversion.combining.member_list import write_member_list
from tango_server.conversion.combining.members import (
    Checked,
    Exposures,
    Member,
    require_alike,
)
from tango_server.conversion.combining.reading import MemberFailed, Reading, check_member
from tango_server.conversion.combining.scan import experiment_of_all
from tango_server.conversion.errors import (
    ConversionError,
    GroupIncompleteError,
    GroupNotReadyError,
    GroupUnfitError,
    IncompleteFileError,
    SourceChangedError,
    SourceMissingError,
)
from tango_server.conversion.files.atomic_write import Attempt
from tango_server.conversion.files.naming import incomplete_path
from tango_server.conversion.files.roots import ANYWHERE, Roots, output_path
from tango_server.conversion.image.buffers import thread_workspace
from tango_server.conversion.provenance import list_hash, origin_of
from tango_server.conversion.publishing import Content, Publication
from tango_server.limits import MOST_MEMBERS
from tango_server.messages import FrameReport, GroupMember, GroupReport, Outcome
from tango_server.recipe import NewFile, Recipe
from tango_server.recipe.combine import Combine

_NAMED = 3
"""Missing members that a message names."""


def convert_group(
    members: Sequence[Member],
    recipe: Recipe,
    *,
    group: str = "",
    output: Path | None = None,
    roots: Roots = ANYWHERE,
    token: str = "offline",  # noqa: S107 - not that kind of token
    job: str | None = None,
    band_bytes: int = BAND_BYTES,
    on_progress: OnProgress = no_progress,
    awaiting: bool = False,
    earlier: Sequence[Path] = (),
) -> GroupReport:
    """Combine frames to one output and return its report.

    Parameters
    ----------
    members: the frames in their order, which decides the result to the last bit
    recipe: how to correct each, to combine and to convert them; with `combine`
    group: its id, for a template of the output's name and for the report
    output: path of the output; by default the recipe decides: named by the first member, or by a template that may have
        `{group}`, and `{first}` and `{last}` for the stems of these members. Of an incomplete group, `_8of10` is added
    roots, token, job: see `convert.convert_file`. If `output` is given too, all paths must already be resolved
    band_bytes: memory for the rows of all frames that a median or sigma-clipped mean needs at a time
    awaiting: whether files that are missing or not complete are awaited by the caller, and so are no failures
    earlier: outputs of this job with members that it has no more, which are removed once this one is there

    Raises
    ------
    GroupNotReadyError
        if there are such files, with `awaiting`.
    GroupIncompleteError
        if members are missing or failed, and the recipe does not say to combine the others.
    GroupUnfitError
        if members do not fit together.
    ConversionError
        another one of its subclasses, as `convert_file` does. Nothing is written then.
    """
    started = time.perf_counter()
    combine, place = recipe.combine, recipe.output
    first = members[0].location if members else Path()
    if combine is None or not isinstance(place, NewFile):
        raise GroupUnfitError(str(first), "the recipe combines no frames", "Give it combine.")
    if not 1 <= len(members) <= MOST_MEMBERS:
        raise GroupUnfitError(
            str(first), f"cannot combine {len(members)} frames", f"A group has 1 to {MOST_MEMBERS} frames."
        )
    if output is None or roots == ANYWHERE:
        members = [_resolved(member, roots) for member in members]
    target = _target(members, recipe, group, roots) if output is None else output
    work = _Group(members, recipe, combine, place, roots, band_bytes, on_progress, awaiting, earlier)
    while True:
        try:
            report = work.published(target, token, job)
        except MemberFailed as failed:  # noted, and the others are combined if the recipe says so
            work.note(failed)
            work.require_ready()
            continue
        break
    listed = tuple(work.listed("grouped" if report.outcome == "converted" else report.outcome))
    return GroupReport.model_validate({
        **dict(report), "group": group or None, "members": listed,
        "conversion_time": time.perf_counter() - started, "finished": time.time(),
    })  # fmt: skip


def _resolved(member: Member, roots: Roots) -> Member:
    if member.problem:
        return member
    try:
        file = roots.frame(member.location.file)
    except ConversionError as error:
        return replace(member, problem=f"{error.problem}. {error.advice}")
    return replace(member, location=replace(member.location, file=file))


def _target(members: Sequence[Member], recipe: Recipe, group: str, roots: Roots) -> Path:
    first, last = members[0], members[-1]
    names = {"group": group, "first": first.location.stem, "last": last.location.stem}
    return output_path(first.location, recipe, roots, {**first.fields, **names})


@dataclass(eq=False)
class _Group:
    """A group that is being combined; `problems` are those of its members, by number."""

    members: Sequence[Member]
    recipe: Recipe
    combine: Combine
    place: NewFile
    roots: Roots
    band_bytes: int
    on_progress: OnProgress
    awaiting: bool = False
    earlier: Sequence[Path] = ()
    problems: dict[int, str] = field(default_factory=dict)
    awaited: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.problems |= {number: each.problem for number, each in enumerate(self.members) if each.problem}

    def published(self, target: Path, token: str, job: str | None) -> FrameReport:
        """Write the output; raise `MemberFailed` for a further member that cannot be read."""
        checked = []
        for number, member in enumerate(self.members):
            if number not in self.problems:
                try:
                    checked.append(check_member(number, member, self.recipe, self.place, self.roots))
                except MemberFailed as failed:
                    self.note(failed)
        self.require_ready()
        self._require_enough(checked)
        require_alike(checked, self.recipe)
        exposures = Exposures.of(checked, self.combine.method)
        first = checked[0].source
        notes = dict.fromkeys(filter(None, (each.source.note for each in checked)))
        source = replace(
            first,
            location=self.members[0].location,  # even if it is missing: a later output replaces that of this group
            header=exposures.header,
            note=" ".join([*notes, *self._notes(exposures)]),
        )
        complete, used = target, len(self.members) - len(self.problems)
        if self.problems:
            target = incomplete_path(complete, used, len(self.members))
        making = _Making(self, checked, exposures, target)
        publication = Publication(
            source, making.content, target, self.recipe, self.roots, token, job, checked[0].member.fields
        )
        report = publication.to_new_file(self.place)
        if report.outcome != "converted":
            return report
        origin = origin_of(source.location, target)
        reasons = (
            report.reason,
            withdraw_fewer(complete, used, len(self.members), origin, self.roots),
            withdraw_complete(complete, origin, [each.location for each in self.members], self.roots, job)
            if self.problems
            else "",
            withdraw(self.earlier, self.roots, job),
        )
        read = sum(each.source.bytes_in for each in checked)
        return report.model_copy(update={"reason": " ".join(filter(None, reasons)), "bytes_in": read})

    def note(self, failed: MemberFailed) -> None:
        """Note why a member cannot be read."""
        error = failed.error
        awaited = self.awaiting and isinstance(error, IncompleteFileError | SourceMissingError | SourceChangedError)
        problems = self.awaited if awaited else self.problems
        problems[failed.number] = f"{error.problem}. {error.advice}"

    def require_ready(self) -> None:
        """Raise `GroupNotReadyError` if files of members are awaited."""
        if self.awaited:
            number, why = min(self.awaited.items())
            raise GroupNotReadyError(
                self.members[number].location.file, f"cannot combine yet: {why}", "It is tried again.", self.awaited
            )

    def listed(self, outcome: Outcome) -> list[GroupMember]:
        """Return all members for the report, with the outcome of those that did not fail."""
        return [
            GroupMember(
                source=each.location.path,
                frame=each.location.index,
                outcome="failed" if number in self.problems else outcome,
                reason=self.problems.get(number, ""),
            )
            for number, each in enumerate(self.members)
        ]

    def facts(self, output: Path) -> dict[str, Any]:
        """Return what the tags of the output say about its members."""
        used = [each.location for number, each in enumerate(self.members) if number not in self.problems]
        return {
            "method": self.combine.method,
            **({"sigma": self.combine.sigma} if self.combine.method == "sigma_clip" else {}),
            "frames": len(self.members),
            "used": len(used),
            "first": self.members[0].location.name,
            "last": used[-1].name,
            "frames_sha256": list_hash(used, output),
        }

    def _require_enough(self, checked: Sequence[Checked]) -> None:
        if not self.problems or (checked and self.combine.on_incomplete == "combine"):
            return
        named = [f"{self.members[number].location.name} ({why})" for number, why in sorted(self.problems.items())]
        more = f"; and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        raise GroupIncompleteError(
            self.members[0].location.file,
            f"cannot combine: {len(named)} of {len(self.members)} frames are missing or failed: "
            f"{'; '.join(named[:_NAMED])}{more}",
            'Restore them, or set on_incomplete = "combine".',
            self.problems,
        )

    def _notes(self, exposures: Exposures) -> list[str]:
        used, notes = len(self.members) - len(self.problems), []
        if self.problems:
            notes.append(f"Combined {used} of {len(self.members)} frames; the others are missing or failed.")
        if used == 1:
            notes.append("One frame only was combined.")
        elif self.combine.method == "sigma_clip" and not can_clip(used, self.combine.sigma):
            notes.append(f"With {used} frames, no value can deviate by more than sigma = {self.combine.sigma:g}.")
        if not exposures.known:
            notes.append("The sum has no sidecar: the number of exposures of a frame is unknown.")
        return notes


@dataclass(eq=False)
class _Making:
    """The content of the output, computed when it is written."""

    group: _Group
    members: Sequence[Checked]
    exposures: Exposures
    target: Path

    def content(self) -> Content:
        """Return what is written; raise `ConversionError`, `MemberFailed`."""
        group, recipe, first = self.group, self.group.recipe, self.members[0]
        kind = combined_type(recipe, group.combine.method, first.source.images[0].pixel_type)
        summed = self.exposures.summed
        values: Mapping[tuple[str, str], str] = {}
        if summed is not None:
            values = {("[metadata]", "summedExposures"): f"{summed:.10g}"}
        experiment = experiment_of_all(self.members, recipe, group.combine)
        return Content(
            lambda: iter([self._image(kind)]),
            marked=True,
            masters=tuple(dict.fromkeys(master for each in self.members for master in each.masters)),
            notes=tuple(dict.fromkeys(note for each in self.members for note in each.notes)),
            combined=group.facts(self.target),
            experiment=experiment,
            has_sidecar=self.exposures.known,
            sidecar_of=first.member.location.file,
            sidecar_values=values,
            beside=self._list,
        )

    def _list(self, output: Path, attempt: Attempt) -> None:
        locations = [each.location for each in self.group.members]
        write_member_list(locations, self.group.listed("grouped"), output, attempt, self.group.roots)

    def _image(self, kind: np.dtype[Any]) -> CombinedImage:
        """Return the image, and count the pixels that are overexposed in any of the frames."""
        group, reading = self.group, Reading(self.members, self.group.recipe, self.group.roots)
        over = np.zeros(reading.shape, np.bool_)
        counts = any(each.counts_overexposed for each in self.members)
        return CombinedImage(
            Combination(group.combine.method, group.combine.sigma, band_bytes=group.band_bytes),
            reading.frames(over),
            reading.orientation,
            group.recipe,
            kind,
            overexposed=lambda: int(np.count_nonzero(over)) if counts else None,
            on_progress=group.on_progress,
            workspace=thread_workspace(),
        )
