"""Which frames of a batch become one, and where each group goes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tango_server.conversion.errors import ConversionError
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.naming import incomplete_path, series_of
from tango_server.conversion.files.roots import output_path
from tango_server.jobs.group_counting import counted_groups, frame_order
from tango_server.jobs.output_check import OutputCheck
from tango_server.jobs.planning import BY_NAME, SEQ_NUM, Counting, Planned, clash, described
from tango_server.recipe import NewFile, Recipe
from tango_server.recipe.combine import Every

NOTHING: Mapping[FrameLocation, str] = {}


@dataclass(frozen=True, slots=True)
class PlannedGroup:
    """Frames that become one output, or the `problem` if there is none; `skip` says why the group is skipped.

    `name`: its number in the batch, from 1. `members` have no outputs of their own. `size`: how many there should be;
    the last group of a folder may lack some. `incomplete_fails`: whether all must be there.
    """

    name: str
    members: tuple[Planned, ...]
    size: int
    output: Path | None = None
    problem: str = ""
    skip: str = ""
    incomplete_fails: bool = True

    @property
    def source(self) -> FrameLocation:
        """The first member."""
        return self.members[0].source

    @property
    def usable(self) -> int:
        """How many members have no problem yet."""
        return sum(not each.problem for each in self.members)

    @property
    def output_made(self) -> Path | None:
        """The path of its output, which says how many frames are missing."""
        if self.output is None or self.usable == self.size:
            return self.output
        return incomplete_path(self.output, self.usable, self.size)

    def checked(self, members: Sequence[Planned]) -> "PlannedGroup":
        """Return the group with more known about its members, and with its problem if it cannot be combined then."""
        group = replace(self, members=tuple(members))
        failed = [each.problem for each in members if each.problem]
        if failed and (self.incomplete_fails or not group.usable):
            problem = f"{self.source}: cannot combine: {len(failed)} of {self.size} frames failed: {failed[0]}"
            return replace(group, output=None, problem=problem)
        return group


def plan_groups(
    frames: Iterable[FrameLocation],
    recipe: Recipe,
    *,
    uncounted: Mapping[FrameLocation, str] = NOTHING,
    newer_only: bool = False,
    counting: Counting = BY_NAME,
) -> list[PlannedGroup]:
    """Return the groups of a recipe that combines `every` n frames, with their outputs.

    Two groups with the same output are both refused. `uncounted` are files whose number of frames is unknown, and
    why: the frames after them cannot be counted. `newer_only` skips groups whose output is current.
    """
    known = {each.source: each for each in described(sorted(set(frames), key=frame_order), recipe, counting)}
    newer = OutputCheck(recipe) if newer_only else None
    every, must_be_complete = _counted_by(recipe)
    found = []
    for number, group in enumerate(counted_groups(known, every), start=1):
        planned = PlannedGroup(
            str(number), tuple(known[frame] for frame in group), every, incomplete_fails=must_be_complete
        )
        problem = _uncounted(group, uncounted, every) or _incomplete(planned)
        found.append(replace(planned, problem=problem) if problem else _placed(planned, recipe, counting, newer))
    takers: dict[Path, list[PlannedGroup]] = {}
    for each in found:
        if each.output is not None:
            takers.setdefault(each.output, []).append(each)
    return [_without_clash(each, takers) for each in found]


def _counted_by(recipe: Recipe) -> tuple[int, bool]:
    """Return how many frames become one, and whether all must be there."""
    if recipe.combine is None or not isinstance(recipe.combine.of, Every):
        raise ValueError("without the documents of a run, a recipe can only combine every n frames")
    return recipe.combine.of.every, recipe.combine.on_incomplete == "fail"


def _uncounted(group: Sequence[FrameLocation], uncounted: Mapping[FrameLocation, str], every: int) -> str:
    """Return why it is unknown which frames belong to a group: a file before its end; empty if they are known."""
    first, last = group[0], group[-1]
    for file, reason in uncounted.items():
        beside = (file.file.parent, file.data_set) == (first.file.parent, first.data_set)
        if beside and (len(group) < every or frame_order(file) <= frame_order(last)):
            return (
                f"{first}: cannot combine: it is unknown how many frames come before it or belong to its group "
                f"({reason}). Restore that file, or move it away."
            )
    return ""


def _incomplete(group: PlannedGroup) -> str:
    if len(group.members) == group.size or not group.incomplete_fails:
        return ""
    return (
        f"{group.source}: cannot combine: the last group has only {len(group.members)} of {group.size} frames. Add the "
        "missing ones, or use --on-incomplete combine."
    )


def _placed(group: PlannedGroup, recipe: Recipe, counting: Counting, newer: OutputCheck | None) -> PlannedGroup:
    first, last = group.members[0], group.members[-1].source
    fields = {**first.fields, "group": group.name, "first": first.source.stem, "last": last.stem}
    try:
        output = output_path(_named(group, recipe, counting), recipe, fields=fields)
    except ConversionError as error:
        return replace(group, problem=str(error))
    group = replace(group, output=output)
    used, made = [each.source for each in group.members if not each.problem], group.output_made
    if newer is not None and made is not None and newer.is_current_group(used, made, group.size):
        return replace(group, skip=f"{made} is newer")
    return group


def _named(group: PlannedGroup, recipe: Recipe, counting: Counting) -> FrameLocation:
    """Return the first frame as the output is named; CrysAlis needs the groups of a scan to be numbered one by one."""
    named = counting.named(group.source, recipe)
    number = group.members[0].fields.get(SEQ_NUM)
    has_template = isinstance(recipe.output, NewFile) and recipe.output.template is not None
    if recipe.esperanto is None or has_template or not isinstance(number, int):
        return named
    place = (number - 1) // group.size
    if named.index is not None:
        return replace(named, index=place)
    return replace(named, file=named.file.with_name(f"{series_of(named.file)[0]}_{place + 1}{named.file.suffix}"))


def _without_clash(group: PlannedGroup, takers: Mapping[Path, Sequence[PlannedGroup]]) -> PlannedGroup:
    if group.output is None:
        return group
    other = next((each for each in takers[group.output] if each is not group), None)
    if other is None:
        return group
    return replace(group, output=None, skip="", problem=clash(group.source, group.output, other.source))
