"""`petif convert --dry-run`: what would be converted, and what would not."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tango_server.commands.output import SOME_FAILED, say
from tango_server.text import counted

if TYPE_CHECKING:
    from tango_server.conversion.esperanto.experiment import Experiment
    from tango_server.conversion.file_state import FileState
    from tango_server.jobs.batch import Planned

_DARKS_NAMED = 10


def show_plan(planned: "Sequence[Planned]", darks: Sequence[Path], *, as_json: bool) -> int:
    """Print where each frame would go, then what would fail, the darks left out, and the counts.

    Files are checked for damage. Return the exit code.
    """
    from tango_server.jobs.containers import may_kill_its_reader, states_of

    possible = [item.source for item in planned if not (item.problem or item.skip)]
    states = states_of([frame for frame in possible if may_kill_its_reader(frame.file)])
    checked = [_checked(item, states.get(item.source)) for item in planned]
    damaged = [item for item in checked if item.problem]
    if as_json:
        for item in checked:
            say(json.dumps(_fields(item)))
    else:
        for item in checked:
            if not item.problem:
                say(f"{item.source} -> {item.output}{_note(item)}")
                if item.experiment is not None:
                    say(f"    {_experiment_words(item.experiment)}")
        for item in damaged:
            say(f"not possible: {item.problem}")
    for dark in darks[:_DARKS_NAMED]:
        say(f"left out: {dark} (dark)", err=as_json)
    if len(darks) > _DARKS_NAMED:
        say(f"left out: {counted(len(darks) - _DARKS_NAMED, 'more dark')}", err=as_json)
    say(_summary(checked, len(darks)), err=as_json)
    return SOME_FAILED if damaged else 0


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
        return replace(item, output=None, problem=str(error))


def _summary(checked: "Sequence[Planned]", darks: int) -> str:
    problems = sum(bool(item.problem) for item in checked)
    skipped = sum(bool(item.skip) for item in checked)
    text = (
        f"dry run: {counted(len(checked) - problems - skipped, 'frame')} would be converted, {skipped} skipped, "
        f"{problems} not possible"
    )
    return text + (f"; {counted(darks, 'dark')} left out (to convert: --include-dark)" if darks else "")


def _fields(item: "Planned") -> dict[str, Any]:
    fields: dict[str, Any] = {"source": str(item.source), "output": str(item.output) if item.output else None}
    if item.experiment is not None:
        angles = {"start": item.experiment.start._asdict(), "end": item.experiment.end._asdict()}
        fields["experiment"] = asdict(item.experiment) | angles
    return {**fields, "problem": item.problem, "skip": item.skip}


def _note(item: "Planned") -> str:
    if item.skip:
        return f"  (skipped: {item.skip})"
    return "  (exists already; see --on-existing)" if item.output and item.output.exists() else ""


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
