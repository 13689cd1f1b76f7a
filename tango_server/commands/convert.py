"""`petif convert`: frames and folders, without a server."""

import json
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tango_server.commands.esperanto_options import esperanto_options, take_esperanto
from tango_server.commands.interrupt import InterruptHandler
from tango_server.commands.output import INTERRUPTED, SOME_FAILED, complain, say
from tango_server.commands.recipe_options import recipe_from, recipe_options
from tango_server.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from tango_server.conversion.esperanto.experiment import Experiment
    from tango_server.jobs.batch import FileSelection, Planned
    from tango_server.messages import FrameReport
    from tango_server.recipe import Recipe

_TOLD_OF_A_CAUSE = 5


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path))
@recipe_options
@esperanto_options
@click.option(
    "--frame-number",
    type=int,
    metavar="N",
    help="ESPERANTO: which number of a name counts the frames: 1 the first, -1 the last.  [default: -1]",
)
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes.  [default: one per core]")
@click.option("--recursive", is_flag=True, help="Take the frames of sub-folders, too.")
@click.option("--pattern", "patterns", multiple=True, help="Take only these of a folder, as 'scan_*' (repeatable).")
@click.option("--include-dark", is_flag=True, help="Take files with 'dark' in their name, too.")
@click.option("--newer-only", is_flag=True, help="Skip frames whose output is as new as they are.")
@click.option("--dry-run", is_flag=True, help="Only tell which frames would go where.")
@click.option("--json", "as_json", is_flag=True, help="One report a line, as JSON.")
def convert(*, paths: tuple[Path, ...], **options: Any) -> None:
    """Convert frames, or the frames of folders, without a server.

    ESPERANTO frames for CrysAlis Pro (--format esperanto) take from QXRD's sidecars what the options do not tell. Their
    angles come from --omega-start and --omega-step, counted by the numbers in the names, or from a table; --dry-run
    shows them.

    Ctrl-C lets the frames that are running finish; a second one does not wait for them.

    Exit code 0: every frame is converted (or skipped); 1: some failed; 2: the call is wrong; 130: Ctrl-C.
    """
    from rich.console import Console

    from tango_server.host_limits import fitting_workers, usable_cores
    from tango_server.jobs.batch import FileSelection, plan, select
    from tango_server.recipe import NewFile

    esperanto, angles = take_esperanto(options)
    recipe = recipe_from(options, esperanto)
    folder = recipe.output.folder if isinstance(recipe.output, NewFile) else None
    selection = FileSelection(
        options["recursive"],
        options["patterns"],
        skip_dark=not options["include_dark"],
        beside=Path(folder) if folder and Path(folder) not in {path.resolve() for path in paths} else None,
    )
    try:
        sources = select(paths, selection)
    except OSError as error:
        raise click.UsageError(f"{error.filename}: the folder can't be listed ({error.strerror})") from error
    if not sources:
        raise click.UsageError(_nothing_in(paths, selection))
    planned = plan(
        sources,
        recipe,
        newer_only=options["newer_only"],
        angles=angles,
        frame_number=_position(options["frame_number"], recipe),
    )
    errors = Console(stderr=True)
    if options["dry_run"]:
        sys.exit(_tell_plan(planned, as_json=options["as_json"]))
    workers = fitting_workers(options["workers"] or usable_cores())
    sys.exit(_convert(planned, recipe, workers, errors, as_json=options["as_json"]))


def _position(number: int | None, recipe: "Recipe") -> int | None:
    """Return `--frame-number` as it is, if it makes sense."""
    if number == 0:
        raise click.UsageError("--frame-number 0 is no number of a name; the first one is 1, the last one -1")
    if number is not None and recipe.esperanto is None:
        raise click.UsageError("--frame-number goes with --format esperanto")
    return number


def _tell_plan(planned: "list[Planned]", *, as_json: bool) -> int:
    for item in planned:
        if as_json:
            fields: dict[str, Any] = {
                "source": str(item.source),
                "output": str(item.output) if item.output else None,
            }
            if item.experiment is not None:
                fields |= {"experiment": asdict(item.experiment) | _angles(item.experiment)}
            say(json.dumps({**fields, "problem": item.problem, "skip": item.skip}))
        elif item.problem:
            say(f"not possible: {item.problem}")
        else:
            say(f"{item.source} -> {item.output}{_note(item)}")
            if item.experiment is not None:
                say("    " + _told(item.experiment))
    return SOME_FAILED if any(item.problem for item in planned) else 0


def _note(item: "Planned") -> str:
    if item.skip:
        return f"  (skipped: {item.skip})"
    return "  (there is a file: see --on-existing)" if item.output and item.output.exists() else ""


def _nothing_in(paths: "Sequence[Path]", selection: "FileSelection") -> str:
    """Return what was found where there is no frame, and what would take it."""
    from tango_server.jobs.batch import select

    found = f"found no frame in {', '.join(map(str, paths))}"
    others = {
        f"that fits {' or '.join(selection.patterns)}; without --pattern": replace(selection, patterns=()),
        "in the folder itself; with --recursive": replace(selection, recursive=True),
        "that is no dark; with --include-dark": replace(selection, skip_dark=False),
    }
    for words, other in others.items():
        if count := len(select(paths, other)):
            return f"{found} {words} it is {counted(count, 'frame')}"
    return f"{found}; expected .tif or .tiff files"


def _angles(experiment: "Experiment") -> dict[str, Any]:
    return {"start": experiment.start._asdict(), "end": experiment.end._asdict()}


def _told(experiment: "Experiment") -> str:
    circles = zip(experiment.start._asdict().items(), experiment.end, strict=True)
    x, y = experiment.beam_center
    return ", ".join(
        [
            *(f"{name} {start:g} to {end:g}" for (name, start), end in circles if start or end),
            f"wavelength {experiment.wavelength:g} Angstrom",
            f"distance {experiment.distance:g} mm",
            f"pixels of {experiment.pixel_size:g} mm",
            f"beam at ({x:g}, {y:g}) of the raw frame",
            f"{experiment.exposure:g} s",
        ]
    )


def _convert(planned: "list[Planned]", recipe: "Recipe", workers: int, errors: "Console", *, as_json: bool) -> int:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from tango_server.jobs.batch import convert_all

    outcomes: Counter[str] = Counter()
    columns = (
        BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]:.1f} frames/s"), TimeRemainingColumn(),
    )  # fmt: skip
    started = time.monotonic()
    with (
        InterruptHandler() as ctrl_c,
        Progress(*columns, console=errors, transient=True) as progress,
        closing(convert_all(planned, recipe, workers, lambda: ctrl_c.pressed)) as reports,
    ):
        task = progress.add_task("", total=len(planned), rate=0.0)
        complaints = _Complaints(errors)
        scans: dict[Path, FrameReport] = {}
        for report in reports:
            outcomes[report.outcome] += 1
            rate = outcomes["converted"] / (time.monotonic() - started)
            progress.update(task, advance=1, rate=rate)
            _tell(report, errors, complaints, as_json=as_json)
            if report.outcome == "converted" and report.output:
                scans[Path(report.output).parent] = report
    complaints.sum_up()
    if recipe.esperanto is not None:
        _write_companions(scans.values(), recipe, errors)
    seconds = time.monotonic() - started
    _sum_up(outcomes, planned, seconds, as_json=as_json)
    if ctrl_c.pressed:
        return INTERRUPTED
    return SOME_FAILED if outcomes["failed"] else 0


def _write_companions(reports: "Iterable[FrameReport]", recipe: "Recipe", errors: "Console") -> None:
    """Write what CrysAlis wants beside the frames of each folder."""
    from tango_server.conversion.errors import ConversionError
    from tango_server.conversion.esperanto.companions import companions_of
    from tango_server.conversion.files.roots import ANYWHERE

    for report in reports:
        try:
            notes = companions_of(Path(report.source), Path(report.output or ""), recipe, ANYWHERE, "offline").notes
        except ConversionError as error:
            notes = (str(error),)
        for note in notes:
            complain(errors, note, style="yellow")


class _Complaints:
    """Why frames failed: one cause that many frames have is told a few times, and then counted."""

    def __init__(self, errors: "Console") -> None:
        self._errors = errors
        self._causes: Counter[str] = Counter()

    def log_report(self, report: "FrameReport") -> None:
        """Tell why a frame failed."""
        source = Path(report.source)
        cause = report.reason.replace(report.source, "").replace(source.stem, "")
        self._causes[cause] += 1
        if self._causes[cause] <= _TOLD_OF_A_CAUSE:
            complain(self._errors, f"failed: {report.reason}")

    def sum_up(self) -> None:
        """Tell how many more there were."""
        for cause, count in self._causes.items():
            if count > _TOLD_OF_A_CAUSE:
                more = counted(count - _TOLD_OF_A_CAUSE, "more frame")
                complain(self._errors, f"failed: {more} for the same reason: {cause.strip(' :')} (--json tells each)")


def _tell(report: "FrameReport", errors: "Console", complaints: _Complaints, *, as_json: bool) -> None:
    if as_json:
        say(report.model_dump_json())
    elif report.outcome == "failed":
        complaints.log_report(report)
    elif report.outcome == "converted" and report.reason:
        complain(errors, f"{report.source}: {report.reason}", style="")


def _sum_up(outcomes: "Counter[str]", planned: "list[Planned]", seconds: float, *, as_json: bool) -> None:
    frames = len(planned)
    folders = {str(item.output.parent) for item in planned if item.output is not None}
    rate = outcomes["converted"] / seconds if seconds else 0.0
    text = (
        f"{outcomes['converted']} of {frames} frames converted in {seconds:.1f} s ({rate:.1f} frames/s), "
        f"{outcomes['skipped']} skipped, {outcomes['failed']} failed"
    )
    left = frames - sum(outcomes.values())
    text += f", {left} not begun" if left else ""
    if outcomes["converted"] and folders:
        text += f"; in {folders.pop()}" if len(folders) == 1 else f"; in {len(folders)} folders"
    say(text, err=as_json)
