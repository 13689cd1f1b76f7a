"""`petif convert --dry-run`: what would be converted, and what would not."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tango_server.commands.output import SOME_FAILED, say
from tango_server.text import counted

if TYPE_CHECKING:
    from tango_server.conversion.esperanto.experiment import Experiment
    from tango_server.conversion.file_state import FileState
    from tango_server.conversion.files.frame_location import FrameLocation
    from tango_server.jobs.group_planning import PlannedGroup
    from tango_server.jobs.planning import Planned
    from tango_server.recipe import Recipe

_DARKS_NAMED = 10


def show_plan(
    planned: "Sequence[Planned | PlannedGroup]", recipe: "Recipe", darks: Sequence[Path], *, as_json: bool
) -> int:
    """Print where each frame or group would go, then what would fail, the darks left out, and the counts.

    Files are checked for damage. Return the exit code.
    """
    from tango_server.jobs.containers import may_kill_its_reader, states_of

    possible = [frame.source for item in planned if not (item.problem or item.skip) for frame in _frames(item)]
    states = states_of([frame for frame in possible if may_kill_its_reader(frame.file)])
    checked = [_not_existing(_checked_item(item, states), recipe) for item in planned]
    damaged = [item for item in checked if item.problem]
    if as_json:
        for item in checked:
            say(json.dumps(_fields(item)))
    else:
        for item in checked:
            if not item.problem:
                say("\n".join(_lines(item)))
        for item in damaged:
            say(f"not possible: {item.problem}")
    for dark in darks[:_DARKS_NAMED]:
        say(f"left out: {dark} (dark)", err=as_json)
    if len(darks) > _DARKS_NAMED:
        say(f"left out: {counted(len(darks) - _DARKS_NAMED, 'more dark')}", err=as_json)
    say(_summary(checked, len(darks)), err=as_json)
    return SOME_FAILED if damaged else 0


def _frames(item: "Planned | PlannedGroup") -> "Sequence[Planned]":
    from tango_server.jobs.planning import Planned

    return [item] if isinstance(item, Planned) else item.members


def _checked_item(
    item: "Planned | PlannedGroup", states: "Mapping[FrameLocation, FileState | str]"
) -> "Planned | PlannedGroup":
    from tango_server.jobs.planning import Planned

    if item.problem or item.skip:
        return item
    if isinstance(item, Planned):
        return _checked(item, states.get(item.source))
    return item.checked([_checked(each, states.get(each.source)) for each in item.members])


def _not_existing(item: "Planned | PlannedGroup", recipe: "Recipe") -> "Planned | PlannedGroup":
    """Return a frame or group, skipped or refused if its output exists and the recipe says so."""
    from tango_server.conversion.errors import ConversionError
    from tango_server.conversion.files.roots import ANYWHERE
    from tango_server.conversion.on_existing import place
    from tango_server.jobs.planning import Planned
    from tango_server.recipe import NewFile

    output = item.output if isinstance(item, Planned) else item.output_made
    if item.problem or item.skip or output is None or not isinstance(recipe.output, NewFile):
        return item
    try:
        return replace(item, skip=place(output, recipe.output, item.source, ANYWHERE)[2])
    except ConversionError as error:
        return replace(item, output=None, problem=str(error))


def _checked(item: "Planned", state: "FileState | str | None") -> "Planned":
    """Return a frame with what is wrong with its file, as far as its structure, or its known state, shows."""
    from tango_server.conversion.errors import ConversionError
    from tango_server.conversion.formats import open_frame

    if item.problem or item.skip:
        return item
    if isinstance(state, str):
        return replace(item, output=None, problem=state)
    try:
        if state is not None:
            state.require_complete(item.source.file)
            return item
        with open_frame(item.source):
            return item
    except ConversionError as error:
        return replace(item, output=None, problem=item.source.about(str(error)))


def _summary(checked: "Sequence[Planned | PlannedGroup]", darks: int) -> str:
    from tango_server.jobs.planning import Planned

    groups = [item for item in checked if not isinstance(item, Planned)]
    problems = sum(bool(item.problem) for item in checked)
    skipped = sum(bool(item.skip) for item in checked)
    made = [item for item in checked if not (item.problem or item.skip)]
    what = f"{counted(len(made), 'frame')} would be converted"
    if groups:
        frames = sum(item.usable for item in groups if not (item.problem or item.skip))
        what = f"{counted(len(made), 'group')} would be combined from {counted(frames, 'frame')}"
    text = f"dry run: {what}, {skipped} skipped, {problems} not possible"
    return text + (f"; {counted(darks, 'dark')} left out (to convert: --include-dark)" if darks else "")


def _lines(item: "Planned | PlannedGroup") -> list[str]:
    """Return lines about a frame, or about a group and each of its members."""
    from tango_server.jobs.planning import Planned

    if isinstance(item, Planned):
        return [f"{item.source} -> {item.output}{_note(item)}", *_experiment_lines(item)]
    how_many = f"{item.usable} of {item.size} frames"
    lines = [f"group {item.name}, {how_many} -> {item.output_made}{_note(item)}"]
    for each in item.members:
        lines.append(f"    {each.source}{f'  (left out: {each.problem})' if each.problem else ''}")
        lines += [f"    {line}" for line in _experiment_lines(each)]
    return lines


def _fields(item: "Planned | PlannedGroup") -> dict[str, Any]:
    from tango_server.jobs.planning import Planned

    if not isinstance(item, Planned):
        output = item.output_made
        members = [{name: value for name, value in _fields(each).items() if name != "output"} for each in item.members]
        return {
            "group": item.name, "source": str(item.source), "output": str(output) if output else None,
            "members": members, "size": item.size, "problem": item.problem, "skip": item.skip,
        }  # fmt: skip
    fields: dict[str, Any] = {"source": str(item.source), "output": str(item.output) if item.output else None}
    if item.experiment is not None:
        angles = {"start": item.experiment.start._asdict(), "end": item.experiment.end._asdict()}
        fields["experiment"] = asdict(item.experiment) | angles
    return {**fields, "problem": item.problem, "skip": item.skip}


def _note(item: "Planned | PlannedGroup") -> str:
    from tango_server.jobs.planning import Planned

    if item.skip:
        return f"  (skipped: {item.skip})"
    output = item.output if isinstance(item, Planned) else item.output_made
    return "  (exists already; see --on-existing)" if output and output.exists() else ""


def _experiment_lines(item: "Planned") -> list[str]:
    return [] if item.experiment is None else [f"    {_experiment_words(item.experiment)}"]


def _experiment_words(experiment: "Experiment") -> str:
    circles = zip(experiment.start._asdict().items(), experiment.end, strict=True)
    x, y = experiment.beam_center
    return ", ".join(
        [
            *(f"{name} {start:g} to {end:g}" for (name, start), end in circles if start or end),
            f"wavelength {experiment.wavelength:g} Angstrom",
            f"distance {experiment.distance:g} mm",
            f"pixel size {experiment.pixel_size:g} mm",
            f"beam at ({x:g}, {y:g}) in the raw frame",
            f"exposure {experiment.exposure:g} s",
        ]
    )
