"""A complete demonstration on one machine: server, RunEngine, simulated detector and catalogue."""

import os
import shlex
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

os.environ.setdefault("OPHYD_CONTROL_LAYER", "dummy")  # no EPICS here; must be set before ophyd is imported

import bluesky.plan_stubs as bps
from bluesky import RunEngine
from bluesky.preprocessors import run_wrapper, stage_wrapper
from bluesky.utils import RunEngineInterrupted
from ophyd.sim import SynAxis
from tiled.client import from_uri
from tiled.server import SimpleTiledServer

from petif_bluesky.attachment import attach
from petif_bluesky.converter import PETifConverter
from petif_bluesky.interrupt_aborts import InterruptAborts
from petif_bluesky.sim import SimulatedPerkinElmer
from tango_server.client.local_server import LocalServer
from tango_server.commands.output import INTERRUPTED
from tango_server.commands.statistics import rows_of
from tango_server.conversion.errors import ConversionError
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import Roots, output_path
from tango_server.conversion.preview import draw_preview
from tango_server.conversion.tiff.reader import read_first_image
from tango_server.messages import FrameReport, RunStatistics
from tango_server.recipe import Recipe

RECIPE = Recipe.preset("xdi", rotation=90, flip="1", corrections={"dark": "run", "saturation": 65_535})


@dataclass(frozen=True, slots=True)
class Places:
    """The subfolders of the demo folder."""

    raw: Path
    processed: Path
    catalogue: Path
    state: Path
    picture: Path

    @classmethod
    def below(cls, folder: Path) -> "Places":
        """Return the subfolders of `folder`, creating those that are missing."""
        places = cls(
            folder / "raw", folder / "processed", folder / "catalogue", folder / "state", folder / "before-after.png"
        )
        for place in (places.raw, places.processed, places.catalogue, places.state):
            place.mkdir(parents=True, exist_ok=True)
        return places


def scan_with_dark(detector: Any, motor: Any, positions: Sequence[float], md: dict[str, Any]) -> Any:
    """Take a dark into the stream `dark`, then a frame at each position of the motor, all in one run."""

    def lights() -> Any:
        for position in positions:
            yield from bps.mv(motor, position)
            yield from bps.trigger_and_read([detector, motor])

    def plan() -> Any:
        yield from bps.mv(detector.shutter, "closed", detector.file_name, "dark")
        yield from stage_wrapper(bps.trigger_and_read([detector], name="dark"), [detector])
        yield from bps.mv(detector.shutter, "open", detector.file_name, "sample")
        yield from stage_wrapper(lights(), [detector])

    return run_wrapper(plan(), md=md)


class Demo:
    """One demonstration in one folder."""

    def __init__(self, folder: Path, frames: int, shape: tuple[int, int], console: Console) -> None:
        self._folder = folder.resolve()
        self._places = Places.below(self._folder)
        self._frames = frames
        self._shape = shape
        self._console = console

    def run(self) -> int:
        """Scan, convert, read back and check; return the exit code."""
        with ExitStack() as stack:
            self._console.print("Starting the conversion server, the catalogue and the simulated detector ...")
            server = stack.enter_context(LocalServer(self._folder, self._places.state))
            storage = [self._places.raw, self._places.processed]
            catalogue = stack.enter_context(SimpleTiledServer(self._places.catalogue, readable_storage=storage))
            client = from_uri(catalogue.uri)
            stack.callback(client.context.close)
            converter = PETifConverter(server.address, name="converter")
            stack.callback(converter.destroy)
            converter.wait_for_connection(timeout=10.0)
            uid = self._scan(converter, client)
            if uid is None:
                return INTERRUPTED
            self._console.print("Reading the run back from the catalogue and comparing each frame with numpy ...")
            reports = converter.client.reports_of_run(uid)
            return self._check_and_print(client[uid], converter.client.run_statistics(uid), reports)

    def _scan(self, converter: PETifConverter, client: Any) -> str | None:
        """Scan a motor; return the uid of the run, or None if the scan was interrupted."""
        motor = SynAxis(name="motor")
        detector = SimulatedPerkinElmer(
            name="pe", directory=self._places.raw, shape=self._shape, motor=motor, exposure_time=0.05,
            pixel_type="uint16", spot=150_000,
        )  # fmt: skip
        run_engine = RunEngine({}, context_managers=[InterruptAborts])
        spool = self._places.state / "spool.sqlite"
        with (
            attach(run_engine, converter, recipe=RECIPE, tiled=client, spool=spool) as attached,
            _progress(self._console) as progress,
        ):
            run_engine.subscribe(_Bars(progress, converter, self._frames))
            positions = np.linspace(-1, 1, self._frames).tolist()
            try:
                uids = run_engine(scan_with_dark(detector, motor, positions, {"sample": "simulated powder"}))
            except RunEngineInterrupted:
                run_engine.abort("interrupted from the keyboard")
                self._console.print("Stopped; the frames taken so far are in", self._places.raw)
                return None
            attached.wait(timeout=10.0)
        return str(uids[0])

    def _check_and_print(self, run: Any, statistics: RunStatistics, reports: Sequence[FrameReport]) -> int:
        """Read the run back, check every frame against its raw frame and print where everything is."""
        (dark,), sources = _files(run, "dark"), _files(run, "primary")
        problems = [problem for source in sources if (problem := self._problem(source, dark))]
        problems += _disagreements(run, self._frames, len(sources))
        self._console.print(_table(statistics))
        if not problems:
            draw_preview(FrameLocation(sources[-1]), _with_dark(dark), self._places.picture)
        overexposed = max((report.pixels.overexposed or 0 for report in reports), default=0)
        self._console.print(
            f"The dark {dark.name} was subtracted. Overexposed pixels: {overexposed} (a spot and hot pixels).",
            soft_wrap=True,
        )
        self._print_places(run.metadata["start"]["uid"], len(sources))
        for problem in problems:
            self._console.print(problem, style="red", soft_wrap=True)
        if problems:
            return 1
        self._console.print(
            f"All {self._frames} frames were converted and match the same conversion done with numpy.",
            style="green",
            soft_wrap=True,
        )
        self._show_next_steps(sources[-1], dark)
        return 0

    def _print_places(self, uid: str, frames: int) -> None:
        self._console.print("Files:")
        for what, where in (
            ("raw frames", f"{self._places.raw} ({frames} of this run)"),
            ("converted", self._places.processed),
            ("catalogue", f"{self._places.catalogue} (run {uid})"),
            ("picture", self._places.picture),
        ):
            self._console.print(f"  {what:<10}  {where}", soft_wrap=True, highlight=False)

    def _show_next_steps(self, source: Path, dark: Path) -> None:
        """Print commands to go on with; they can be pasted as they are."""
        self._console.print("Next, for example:")
        for what, command in (
            (
                "draw a frame, corrected and converted",
                ["petif", "preview", source, "--dark", dark, "--rotation", "90", "--flip", "1"],
            ),
            ("describe a converted file", ["petif", "inspect", self._output(source)]),
            ("list what petif convert would do", ["petif", "convert", self._places.raw, "--dry-run"]),
            ("run a server that converts frames in this folder", ["petif", "serve", "--root", self._folder]),
        ):
            self._console.print(f"  # {what}", highlight=False)
            line = _command_line([str(word) for word in command])
            self._console.print(f"  {line}", soft_wrap=True, highlight=False, markup=False)

    def _output(self, source: Path) -> Path:
        return output_path(source.resolve(), RECIPE, Roots.of([self._folder]))

    def _problem(self, source: Path, dark: Path) -> str:
        """Check a converted frame with an independent calculation; return the problem, empty if there is none."""
        output = self._output(source)
        if not output.exists():
            return f"{output} is missing"
        try:
            raw, dark_counts, converted = (read_first_image(path) for path in (source, dark, output))
        except ConversionError as error:
            return str(error)
        expected = np.flip(np.rot90(raw.astype(np.int32) - dark_counts), 1)
        return "" if np.array_equal(converted, expected) else f"{output} differs from its raw frame"


def _files(run: Any, stream: str) -> list[Path]:
    return [Path(str(name)) for name in np.asarray(run[stream].read()["pe_full_file_name"])]


def _with_dark(dark: Path) -> Recipe:
    """Return the recipe with the file of the run's dark."""
    corrections = RECIPE.corrections and RECIPE.corrections.with_dark((str(dark.resolve()),))
    return RECIPE.model_copy(update={"corrections": corrections})


def _command_line(words: list[str]) -> str:
    """Return a command as the shell of this system takes it."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def _disagreements(run: Any, frames: int, taken: int) -> list[str]:
    """Return how the run read back from the catalogue differs from what was requested."""
    stream = run["conversion"].read()
    found = {name: int(stream[f"converter_{name}"][-1]) for name in ("submitted", "converted", "failed")}
    expected = {"submitted": frames, "converted": frames, "failed": 0}
    stored = run.metadata.get("conversion", {})
    problems = []
    if found != expected or {name: stored.get(name) for name in expected} != expected:
        problems.append(f"not all frames were converted: {found} instead of {expected}")
    if taken != frames:
        problems.append(f"the catalogue has {taken} frames instead of {frames}")
    if Recipe.model_validate(run.metadata["start"]["conversion"]["recipe"]) != RECIPE:
        problems.append("the recipe in the start document is not the one requested")
    return problems


class _Bars:
    """Two progress bars: frames taken (from documents) and frames converted (from the server)."""

    def __init__(self, progress: Progress, converter: PETifConverter, frames: int) -> None:
        self._progress = progress
        self._poller = converter.poller
        self._taken = progress.add_task("taken", total=frames)
        self._converted = progress.add_task("converted", total=frames)
        self._unfollow: Callable[[], None] = lambda: None

    def __call__(self, name: str, document: Any) -> None:
        if name == "start":
            self._unfollow = self._poller.follow(document["uid"], self._look)
        elif name == "event" and "motor" in document["data"]:
            self._progress.advance(self._taken)
        elif name == "event" and "converter_converted" in document["data"]:
            self._progress.update(self._converted, completed=document["data"]["converter_converted"])
        elif name == "stop":
            self._unfollow()

    def _look(self, statistics: RunStatistics | None) -> None:
        if statistics is not None:
            self._progress.update(self._converted, completed=statistics.converted)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def _table(statistics: RunStatistics) -> Table:
    table = Table("conversion of this run", "", title="from the catalogue and the server")
    for row in rows_of(statistics):
        table.add_row(*row)
    return table
