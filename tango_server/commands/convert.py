"""`petif convert`: frames and folders, without a server."""

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tango_server.commands.combine_options import combine_options, take_combine
from tango_server.commands.convert_output import Complaints, Counts, print_report
from tango_server.commands.correction_options import correction_options, take_corrections
from tango_server.commands.dry_run import show_plan
from tango_server.commands.esperanto_options import esperanto_options, take_esperanto
from tango_server.commands.frame_paths import darks_left_out, frames_of
from tango_server.commands.frame_slice import FrameSlice
from tango_server.commands.interrupt import InterruptHandler
from tango_server.commands.output import INTERRUPTED, SOME_FAILED, complain, say
from tango_server.commands.recipe_options import recipe_from, recipe_options

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from tango_server.jobs.containers import Contents
    from tango_server.jobs.group_planning import PlannedGroup
    from tango_server.jobs.planning import Counting, Planned
    from tango_server.messages import FrameReport
    from tango_server.recipe import Recipe


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path))
@recipe_options
@correction_options
@esperanto_options
@combine_options
@click.option(
    "--frame-number",
    type=int,
    metavar="N",
    help="ESPERANTO: which number in a file name is the frame number: 1 the first, -1 the last.  [default: -1]",
)
@click.option(
    "--frames",
    "chosen",
    type=FrameSlice(),
    metavar="INDICES",
    help="Of files of several frames (HDF5, EDF) only these, from 0: an index, or START:STOP:STEP as in Python.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes.  [default: one per core]")
@click.option("--recursive", is_flag=True, help="Include sub-folders.")
@click.option(
    "--pattern", "patterns", multiple=True, help="Convert only files in folders that match, as 'scan_*' (repeatable)."
)
@click.option("--include-dark", is_flag=True, help="Include files with 'dark' in their name.")
@click.option(
    "--newer-only", is_flag=True, help="Skip frames whose output is not older and has the same recipe and masters."
)
@click.option("--dry-run", is_flag=True, help="Show what would be converted, and convert nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one report per line, as JSON.")
def convert(*, paths: tuple[Path, ...], **options: Any) -> None:
    """Convert frames, or all frames in a folder, without a server.

    For CrysAlis Pro (--format esperanto), geometry that is not given as an option is taken from QXRD's sidecars. Angles
    come from --omega-start and --omega-step, counted by the frame numbers in the file names, or from a table. Check
    them with --dry-run.

    With --combine, several frames become one, which is named by the first of them, or by --template with {group},
    {first} and {last}. Frames of two folders are never combined.

    Ctrl-C finishes the frames in progress; a second Ctrl-C stops at once.

    Exit codes: 0: all frames were converted or skipped; 1: a frame failed, or a path does not exist or has no frames;
    2: usage error; 130: Ctrl-C.
    """
    from rich.console import Console

    from tango_server.host_limits import fitting_workers, usable_cores
    from tango_server.jobs.batch import FileSelection
    from tango_server.jobs.containers import contents_of
    from tango_server.jobs.planning import Counting
    from tango_server.recipe import NewFile

    esperanto, angles = take_esperanto(options)
    corrections = take_corrections(options)
    if "esperanto" in {options["preset"], options["format_"]}:
        corrections, esperanto = with_companion_mask(corrections, esperanto)
    recipe = recipe_from(options, esperanto, corrections=corrections, combine=take_combine(options))
    folder = recipe.output.folder if isinstance(recipe.output, NewFile) else None
    selection = FileSelection(
        options["recursive"],
        options["patterns"],
        skip_dark=not options["include_dark"],
        beside=Path(folder) if folder and Path(folder) not in {path.resolve() for path in paths} else None,
    )
    counting = Counting(angles, _position(options["frame_number"], recipe))
    files, without_frames = frames_of(paths, selection)
    contents = contents_of(files, options["chosen"])
    planned, notes = _planned(contents, recipe, counting, newer_only=options["newer_only"])
    for note in notes:
        complain(Console(stderr=True), note, style="yellow")
    if options["dry_run"]:
        code = show_plan(planned, recipe, darks_left_out(paths, selection, files), as_json=options["as_json"])
    else:
        workers = fitting_workers(options["workers"] or usable_cores())
        code = _convert(planned, recipe, workers, Console(stderr=True), as_json=options["as_json"])
    for problem in without_frames:
        complain(Console(stderr=True), problem)
    sys.exit(code or (SOME_FAILED if without_frames else 0))


def _planned(
    contents: "Contents", recipe: "Recipe", counting: "Counting", *, newer_only: bool
) -> "tuple[list[Planned | PlannedGroup], list[str]]":
    """Return what to convert, and notes on how it was counted."""
    from tango_server.jobs.group_counting import gaps_in, mixed_in
    from tango_server.jobs.group_planning import plan_groups
    from tango_server.jobs.grouping import every_of
    from tango_server.jobs.planning import Planned, plan

    planned: list[Planned | PlannedGroup] = []
    notes: list[str] = []
    if recipe.combine is None:
        planned += plan(contents.frames, recipe, newer_only=newer_only, counting=counting)
    else:
        unknown = contents.uncounted
        planned += plan_groups(contents.frames, recipe, uncounted=unknown, newer_only=newer_only, counting=counting)
        notes = [*gaps_in(contents.frames), *mixed_in(contents.frames, every_of(recipe.combine) or 1)]
    planned += [Planned(file, None, skip=reason) for file, reason in contents.skipped.items()]
    planned += [Planned(file, None, problem=problem) for file, problem in contents.failed.items()]
    return planned, notes


def with_companion_mask(
    corrections: dict[str, Any] | None, esperanto: dict[str, Any]
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Return both with a single mask that is a TIFF moved to `esperanto`: it goes into CrysAlis' own files as well."""
    given = corrections or {}
    masks = given.get("mask", [])
    if len(masks) != 1 or not masks[0].lower().endswith((".tif", ".tiff")) or "masters_in" in given:
        return corrections, esperanto
    return {name: value for name, value in given.items() if name != "mask"} or None, {**esperanto, "mask": masks[0]}


def _position(number: int | None, recipe: "Recipe") -> int | None:
    """Return the value of `--frame-number`, if it is valid."""
    if number == 0:
        raise click.UsageError("--frame-number cannot be 0: 1 is the first number in a name, -1 the last.")
    if number is not None and recipe.esperanto is None:
        raise click.UsageError("--frame-number is only for ESPERANTO frames. Add --format esperanto.")
    return number


def _convert(
    planned: "Sequence[Planned | PlannedGroup]", recipe: "Recipe", workers: int, errors: "Console", *, as_json: bool
) -> int:
    from tango_server.jobs.batch import convert_all

    counts = Counts(planned, combines=recipe.combine is not None)
    complaints = Complaints(errors, counts.noun)
    scans: dict[Path, FrameReport] = {}
    with (
        InterruptHandler() as ctrl_c,
        counts.progress(errors) as progress,
        closing(convert_all(planned, recipe, workers, lambda: ctrl_c.pressed)) as reports,
    ):
        for report in reports:
            counts.add(report)
            counts.show(progress)
            print_report(report, errors, complaints, as_json=as_json)
            if report.outcome == "converted" and report.output:
                scans[Path(report.output).parent] = report
    complaints.sum_up()
    if recipe.esperanto is not None:
        _write_companions(scans.values(), recipe, errors)
    say(counts.summary(), err=as_json)
    if ctrl_c.pressed:
        return INTERRUPTED
    return SOME_FAILED if counts.outcomes["failed"] else 0


def _write_companions(reports: "Iterable[FrameReport]", recipe: "Recipe", errors: "Console") -> None:
    """Write the files that CrysAlis Pro needs next to the frames of each folder."""
    from tango_server.conversion.errors import ConversionError
    from tango_server.conversion.esperanto.companions import companions_of
    from tango_server.conversion.files.frame_location import FrameLocation
    from tango_server.conversion.files.roots import ANYWHERE

    for report in reports:
        try:
            source = FrameLocation.of(report.source, report.frame)
            notes = companions_of(source, Path(report.output or ""), recipe, ANYWHERE, "offline").notes
        except ConversionError as error:
            notes = (str(error),)
        for note in notes:
            complain(errors, note, style="yellow")
