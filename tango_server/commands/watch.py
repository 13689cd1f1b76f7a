"""`petif watch`: convert frames as they appear in folders, without a server."""

import hashlib
import logging
import os
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import closing, nullcontext
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tango_server.commands.combine_options import refuse_to_combine
from tango_server.commands.correction_options import correction_options, take_corrections
from tango_server.commands.output import INTERRUPTED, SOME_FAILED, complain, say
from tango_server.commands.recipe_options import recipe_from, recipe_options
from tango_server.text import counted

if TYPE_CHECKING:
    from tango_server.jobs.runner import JobRunner
    from tango_server.jobs.watch.folder_watch import FolderWatch
    from tango_server.messages import FrameReport
    from tango_server.recipe import Recipe
    from tango_server.settings import Settings

_REFRESH = 0.2
_LOG_BYTES = 5_000_000
_NOTHING_NEW = (
    "Nothing new: frames that an earlier watch of these folders has converted are not converted again, even with other "
    "options. To convert them again, use petif convert or another --state-dir."
)


@click.command()
@click.argument("folders", nargs=-1, required=True, metavar="DIR...",
                type=click.Path(path_type=Path, exists=True, file_okay=False, resolve_path=True))  # fmt: skip
@recipe_options
@correction_options
@click.option("--existing/--no-existing", default=None,
              help="Convert the frames that exist when a folder is first watched.  [default: with --once]")  # fmt: skip
@click.option("--recursive/--no-recursive", default=True, show_default=True, help="Watch sub-folders as well.")
@click.option("--interval", type=click.FloatRange(0.05, 3600), default=1.0, show_default=True,
              help="Polling interval, s.")  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes.  [default: one per core, at most 4]")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=15.0, show_default=True,
              help="How long to wait for an unfinished file, s.")  # fmt: skip
@click.option("--state-dir", type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
              help="Folder for the record of converted frames.  [default: a separate one for each DIR...]")  # fmt: skip
@click.option("--combine", hidden=True, expose_value=False, callback=refuse_to_combine)
@click.option("--once", is_flag=True, help="Convert the frames that exist, then exit.")
@click.option("--json", "as_json", is_flag=True, help="Print one report per line, as JSON.")
def watch(*, folders: tuple[Path, ...], **options: Any) -> None:
    """Convert frames as they appear in folders, without a server.

    Folders are polled, so GPFS, NFS and SMB work as well. Stop it with Ctrl-C; the next call with the same folders
    continues where it stopped.

    Exit codes with --once: 0: all frames were converted or skipped; 1: some failed.
    """
    from tango_server.jobs.startup import open_runner
    from tango_server.jobs.watch.folder_watch import FolderWatch, rules_from

    recipe = recipe_from(options, corrections=take_corrections(options))
    if recipe.esperanto is not None:
        raise click.UsageError("Cannot watch for ESPERANTO frames: their angles are unknown. Use petif convert.")
    settings = _settings(folders, recipe, options)
    rules = rules_from(settings)
    printer = _Printer(as_json=options["as_json"])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _log_to(settings.state_dir)
        with (
            closing(open_runner(settings.model_copy(update={"watch": ()}), lambda _: None)) as runner,
            closing(FolderWatch(rules, runner, settings.state_dir, on_report=printer.log_report)) as watcher,
        ):
            code = _watch_on(runner, watcher, printer, once=options["once"])
    except OSError as error:
        raise click.ClickException(str(error)) from error
    sys.exit(code)


class _Printer:
    """Prints reports, from the threads of the watch, before the watch records them as reported."""

    def __init__(self, *, as_json: bool) -> None:
        from rich.console import Console

        self.as_json = as_json
        self.outcomes: Counter[str] = Counter()
        self.broken = ""
        """Why the output can no longer be written; empty if it can."""
        self.errors = Console(stderr=True)
        self._one_at_a_time = threading.Lock()

    def log_report(self, report: "FrameReport") -> None:
        """Print the outcome of a frame."""
        with self._one_at_a_time:
            if not report.frames:  # they have reports of their own
                self.outcomes[report.outcome] += 1
            try:
                self._say(report)
            except OSError as error:
                self.broken = f"Cannot write the output: {error.strerror}. The next call continues from here."

    def _say(self, report: "FrameReport") -> None:
        if self.as_json:
            say(report.model_dump_json())
            return
        if report.outcome == "failed":
            self.warn(f"failed: {report.reason}")
            return
        if report.outcome == "converted" and report.reason:
            self.warn(f"{report.frame_name}: {report.reason}")
        if not self.errors.is_terminal:
            say(f"{report.outcome}: {report.frame_name} -> {report.output or report.reason}")

    def warn(self, text: str) -> None:
        """Print a problem."""
        complain(self.errors, text)


def _watch_on(runner: "JobRunner", watcher: "FolderWatch", printer: _Printer, *, once: bool) -> int:
    """Show the progress until Ctrl-C, or until all frames are done if `once`; return the exit code."""
    try:
        _show_progress(runner, watcher, printer, once=once)
        interrupted = False
    except KeyboardInterrupt:
        interrupted = True
    if runner.fault or printer.broken:
        raise click.ClickException(runner.fault or printer.broken)
    say(_counts(runner, printer), err=printer.as_json)
    if not once:
        return 0
    if interrupted:
        return INTERRUPTED
    if not printer.outcomes and not watcher.problem:
        say(_NOTHING_NEW, err=True)
    return SOME_FAILED if printer.outcomes["failed"] or watcher.problem else 0


def _show_progress(runner: "JobRunner", watcher: "FolderWatch", printer: _Printer, *, once: bool) -> None:
    """Show problems and counts until the watch cannot continue, or until all frames are done if `once`."""
    begun, problem = False, ""
    with printer.errors.status("") if printer.errors.is_terminal else nullcontext() as line:
        while True:
            # First, so that the last state is shown. An earlier watch may have left frames of a file in the queue.
            finished = once and watcher.idle and not runner.snapshot.queue_length
            done = runner.fault or printer.broken or finished
            if watcher.begun and not begun:
                begun = True
                say("converting existing frames" if once else "watching (stop with Ctrl-C)", err=True)
            if watcher.problem != problem:
                problem = watcher.problem
                printer.warn(problem or "the problem is solved")
            if line is not None:
                line.update(_numbers(runner, printer))
            if done:
                return
            time.sleep(_REFRESH)


def _numbers(runner: "JobRunner", printer: _Printer) -> str:
    return f"{_counts(runner, printer)}; {runner.snapshot.frames_per_second:.1f} frames/s"


def _counts(runner: "JobRunner", printer: _Printer) -> str:
    counts = printer.outcomes
    return (
        f"{counted(counts['converted'], 'frame')} converted, {counts['skipped']} skipped, {counts['failed']} failed, "
        f"{runner.snapshot.queue_length} pending"
    )


def _settings(folders: tuple[Path, ...], recipe: "Recipe", options: dict[str, Any]) -> "Settings":
    from pydantic import ValidationError

    from tango_server.conversion.files.roots import Roots
    from tango_server.recipe import NewFile
    from tango_server.settings import Settings
    from tango_server.text import explain

    roots = tuple(dict.fromkeys(map(_root_of, folders)))
    writable = Roots.of(roots).write
    if isinstance(recipe.output, NewFile) and recipe.output.folder is not None:
        writable = (*writable, Path(recipe.output.folder))
    fields: dict[str, Any] = {
        "read_roots": (*roots, *_folders_of_masters(recipe, roots)),
        "write_roots": writable,
        "state_dir": options["state_dir"] or _own_state_dir(folders),
        "recipe": recipe,
        "timeout": options["timeout"],
        "watch": folders,
        "watch_existing": options["once"] if options["existing"] is None else options["existing"],
        "watch_recursive": options["recursive"],
        "watch_interval": options["interval"],
    }
    if options["workers"] is not None:
        fields["numworkers"] = options["workers"]
    try:
        return Settings(**fields)
    except ValidationError as error:
        raise click.UsageError(explain(error)) from error


def _root_of(folder: Path) -> Path:
    """Return where the path rule starts: the first folder named `raw` on the path, else `folder` itself."""
    from tango_server.conversion.files.roots import RAW

    way = (*reversed(folder.parents), folder)
    return next((place for place in way if place.name == RAW), folder)


def _folders_of_masters(recipe: "Recipe", roots: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return the folders of the recipe's masters that are outside the `roots`."""
    from tango_server.recipe.corrections import split_master

    masters = recipe.corrections.masters if recipe.corrections else ()
    files = [Path(file) for _, path in masters if (file := split_master(path)[0])]
    outside = [file.parent for file in files if not any(file.is_relative_to(root) for root in roots)]
    return tuple(dict.fromkeys(outside))


def _own_state_dir(folders: tuple[Path, ...]) -> Path:
    from tango_server.home import state_folder

    digest = hashlib.sha256(b"\0".join(os.fsencode(folder) for folder in sorted(set(folders)))).hexdigest()[:8]
    return state_folder() / f"watch-{folders[0].name}-{digest}"


def _log_to(state_dir: Path) -> None:
    """Keep the log out of the terminal, where reports are printed."""
    state_dir.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(state_dir / "watch.log", maxBytes=_LOG_BYTES, backupCount=3, delay=True)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", handlers=[handler]
    )
