"""The Tango device class `PETifConverter`: translates attributes and commands to the job service; computes nothing."""

import logging
from collections.abc import Callable
from typing import Any, ClassVar

import tango
from pydantic import ValidationError
from tango.server import Device, attribute, command, device_property

from tango_server.conversion.errors import ConversionError
from tango_server.conversion.provenance import package_version
from tango_server.jobs.condition import condition
from tango_server.jobs.folders import frames_in
from tango_server.jobs.intake import explain
from tango_server.jobs.ledger import UnknownIdError
from tango_server.jobs.opening import open_runner
from tango_server.jobs.runner import JobRunner
from tango_server.jobs.vocabulary import Snapshot
from tango_server.messages import ReportsQuery, SubmitQuery
from tango_server.notifier import Notifier
from tango_server.recipe import Recipe as ConversionRecipe
from tango_server.settings import Settings
from tango_server.wire import from_wire, throw, to_latin, to_wire

_log = logging.getLogger(__name__)

_COUNTERS: dict[str, Callable[[Snapshot], Any]] = {
    "NumProcessed": lambda now: now.processed,
    "StatisticsTotalFrames": lambda now: now.converted,
    "StatisticsTotalTime": lambda now: now.conversion_time_total,
    "StatisticsAverageTime": lambda now: now.conversion_time_mean,
    "QueueLength": lambda now: now.queue_length,
    "NumFailed": lambda now: now.failed,
    "NumSkipped": lambda now: now.skipped,
    "NumPlaceholders": lambda now: now.placeholders,
    "FramesPerSecond": lambda now: now.frames_per_second,
    "LatencyMedian": lambda now: now.latency_median,
    "LatencyP95": lambda now: now.latency_p95,
    "LastSource": lambda now: to_latin(now.last_source),
    "LastOutput": lambda now: to_latin(now.last_output),
    "LastError": lambda now: to_latin(now.last_error),
    "FailedFiles": lambda now: [to_latin(path) for path in now.failed_files],
}


def _counter(name: str, dtype: Any, label: str, doc: str, *unit_and_format: str, **size: int) -> attribute:
    """Return a read-only attribute that shows one number of the snapshot and pushes its changes."""
    value = _COUNTERS[name]
    unit, form = (*unit_and_format, "", "")[:2]
    return attribute(
        fget=lambda device: value(device.numbers),
        dtype=dtype,
        label=label,
        doc=doc,
        unit=unit,
        format=form,
        change_event_implemented=True,
        change_event_detect=False,
        **size,
    )


class PETifConverter(Device):
    """Converts frames of a Perkin-Elmer detector: rotates, flips, retypes and writes them for other programs."""

    launch_settings: ClassVar[dict[str, Any]] = {}
    """What the program that starts the server has set; device properties go over it."""

    numworkers = device_property(dtype=int, doc="Worker processes; taken up by Init with the queue kept")
    read_roots = device_property(dtype=[str], doc="Folders that may be read")
    write_roots = device_property(dtype=[str], doc="Folders that may be written (default: the read roots, and their "
                                                   "images under the path rule)")  # fmt: skip
    state_dir = device_property(dtype=str, doc="Folder of the ledger")
    recipe = device_property(dtype=str, doc="JSON of the recipe for requests that bring none, until SetRecipe")

    NumProcessed = _counter(
        "NumProcessed", int, "Processed files", "Files that got a report, also malformed ones", "files"
    )
    StatisticsTotalFrames = _counter("StatisticsTotalFrames", int, "Converted frames", "Frames converted", "frames")
    StatisticsTotalTime = _counter(
        "StatisticsTotalTime", float, "Total time", "Total time of the conversions", "s", "%.3f"
    )
    StatisticsAverageTime = _counter(
        "StatisticsAverageTime", float, "Average time", "Mean time of one conversion", "s", "%.4f"
    )
    QueueLength = _counter("QueueLength", int, "Queue", "Frames that are accepted and have no report yet", "frames")
    NumFailed = _counter("NumFailed", int, "Failed", "Frames that could not be converted", "frames")
    NumSkipped = _counter("NumSkipped", int, "Skipped", "Frames that needed no conversion", "frames")
    NumPlaceholders = _counter(
        "NumPlaceholders", int, "Placeholders", "Zero-filled frames in place of files that never came", "frames"
    )
    FramesPerSecond = _counter("FramesPerSecond", float, "Rate", "Converted in the last 10 s", "frames/s", "%.2f")
    LatencyMedian = _counter(
        "LatencyMedian", float, "Median latency", "From file complete (or accepted) to output visible", "s", "%.4f"
    )
    LatencyP95 = _counter("LatencyP95", float, "95 % latency", "95 % of the outputs are visible within", "s", "%.4f")
    LastSource = _counter("LastSource", str, "Last source", "The file that got a report last")
    LastOutput = _counter("LastOutput", str, "Last output", "The file that was written last")
    LastError = _counter("LastError", str, "Last error", "Why a frame failed last, and what to do")
    FailedFiles = _counter(
        "FailedFiles", [str], "Failed files", "Sources of the last failed frames, oldest first", max_dim_x=1000
    )

    @attribute(label="Workers", unit="processes", doc="Worker processes", dtype=int)
    def NumWorkers(self) -> int:
        """Worker processes."""
        return self._settings.numworkers if self._settings else 0

    @attribute(label="Rotation", unit="deg", doc="Rotation of the image, counter-clockwise", dtype=int)
    def ConfRotation(self) -> int:
        """Rotation of the image, counter-clockwise."""
        return self._current_recipe().rotation

    @attribute(label="Flip", doc="Flip after the rotation: none, 0 (up-down), 1 (left-right), both", dtype=str)
    def ConfFlip(self) -> str:
        """Flip after the rotation."""
        return self._current_recipe().flip

    @attribute(label="Pixel type", doc="Pixel type of the output; source: as the input", dtype=str)
    def ConfType(self) -> str:
        """Pixel type of the output."""
        return self._current_recipe().pixel_type or "source"

    @attribute(label="Recipe", doc="The recipe for requests that bring none, as JSON", dtype=str)
    def Recipe(self) -> str:
        """The recipe for requests that bring none, as JSON."""
        return to_wire(self._current_recipe())

    @property
    def numbers(self) -> Snapshot:
        """The numbers that the counters show."""
        return self._runner.snapshot if self._runner else Snapshot()

    def init_device(self) -> None:
        """Read the properties and start a fresh service; a wrong setting leaves the device alive, in FAULT."""
        self._runner: JobRunner | None = None
        self._settings: Settings | None = None
        self._fault = ""
        super().init_device()
        self.add_version_info("petif-bluesky", package_version())
        for name in ("State", "Status"):
            self.set_change_event(name, True, False)  # noqa: FBT003 - Tango's own signature
        self._notifier = Notifier(self, self._values)
        try:
            self._settings = Settings.merged(self.launch_settings, self._properties())
            self._runner = open_runner(self._settings, self._changed)
        except ValidationError as error:
            self._fault = f"The configuration is wrong: {explain(error)}. Correct it, then call Init."
        except OSError as error:
            self._fault = f"{error} Then call Init."
        if self._fault:
            _log.error("%s", self._fault)
        self._notifier.wake()

    def delete_device(self) -> None:
        """Let running conversions finish; what is not finished stays on the ledger."""
        self._notifier.stop()
        if self._runner:
            self._runner.close()
            self._runner = None

    def dev_state(self) -> tango.DevState:
        """The state by the service's condition."""
        return getattr(tango.DevState, self._condition()[0])

    def dev_status(self) -> str:
        """The status by the service's condition."""
        return self._condition()[1]

    @command(dtype_in=[str], doc_in="Paths of files to convert with the server's recipe; each call makes new jobs")
    def AddFiles(self, paths: list[str]) -> None:
        """Convert files."""
        self._add_files(paths)

    @command(dtype_in=str, doc_in="Path of a folder: its .tif and .tiff files, no darks", dtype_out=int, doc_out="0")
    def AddFolder(self, path: str) -> int:
        """Convert the frames of a folder."""
        self._add_folder(path)
        return 0

    @command(dtype_in=str, doc_in="Path of a file or of a folder", dtype_out=int, doc_out="0")
    def AddFileOrDir(self, path: str) -> int:
        """Convert a file or the frames of a folder."""
        if self._readable(path).is_dir():
            self._add_folder(path)
        else:
            self._add_files([path])
        return 0

    @command
    def ResetStats(self) -> None:
        """Start the counters from zero."""
        self._service().reset_statistics()

    @command
    def Acknowledge(self) -> None:
        """End the alarm about frames that failed so far."""
        self._service().acknowledge()

    @command(dtype_in=str, dtype_out=bool)
    def TestOsExists(self, path: str) -> bool:
        """Whether this host sees the path (within the roots)."""
        return self._readable(path).exists()

    @command(dtype_in=str, dtype_out=bool)
    def TestOsIsDir(self, path: str) -> bool:
        """Whether this host sees the path (within the roots) as a folder."""
        return self._readable(path).is_dir()

    @command(dtype_in=str, dtype_out=bool)
    def TestOsIsFile(self, path: str) -> bool:
        """Whether this host sees the path (within the roots) as a file."""
        return self._readable(path).is_file()

    @command(dtype_in=str, doc_in='JSON {"requests": [FrameRequest...]}', dtype_out=str, doc_out="JSON: jobs, refused")
    def Submit(self, text: str) -> str:
        """Accept requests; answers when they are durable."""
        return to_wire(self._service().submit(from_wire(SubmitQuery, text, "Submit")))

    @command(
        dtype_in=str,
        doc_in='JSON {"job_ids": [...]} or {"run_uid": ...}',
        dtype_out=str,
        doc_out="JSON: reports, pending",
    )
    def GetReports(self, text: str) -> str:
        """Tell what became of jobs; an unknown id is an error."""
        query = from_wire(ReportsQuery, text, "GetReports")
        try:
            return to_wire(self._service().reports(query))
        except UnknownIdError as error:
            throw("PETIF_UnknownId", str(error), "GetReports")

    @command(dtype_in=str, doc_in="Run uid", dtype_out=str, doc_out="JSON of RunStatistics")
    def GetRunStatistics(self, run_uid: str) -> str:
        """Tell what became of the frames of a run; an unknown run is an error."""
        try:
            return to_wire(self._service().run_statistics(run_uid))
        except UnknownIdError as error:
            throw("PETIF_UnknownId", str(error), "GetRunStatistics")

    @command(dtype_in=str, doc_in="JSON of a recipe")
    def SetRecipe(self, text: str) -> None:
        """Take another recipe for requests that bring none; kept over restarts."""
        self._service().set_recipe(from_wire(ConversionRecipe, text, "SetRecipe"))
        self._notifier.wake()

    def _properties(self) -> dict[str, Any]:
        """The device properties that are set, as fields of the settings."""
        fields: dict[str, Any] = {
            "numworkers": self.numworkers,
            "read_roots": self.read_roots,
            "write_roots": self.write_roots,
            "state_dir": self.state_dir,
            "recipe": self.recipe,
        }
        return {name: value for name, value in fields.items() if value}

    def _changed(self, runner: JobRunner) -> None:
        if runner is self._runner:  # a service of before Init has nothing to say any more
            self._notifier.wake()

    def _values(self) -> dict[str, Any]:
        numbers = self.numbers
        word, status = self._condition()
        self.set_state(getattr(tango.DevState, word))  # what Tango's own code reports in events
        self.set_status(status)
        values = {name: value(numbers) for name, value in _COUNTERS.items()}
        return {**values, "State": getattr(tango.DevState, word), "Status": status}

    def _condition(self) -> tuple[str, str]:
        word, status = condition(self.numbers, self._fault or (self._runner.fault if self._runner else ""))
        return word, to_latin(status)

    def _current_recipe(self) -> ConversionRecipe:
        return self._service().recipe

    def _service(self) -> JobRunner:
        if self._runner is None:
            throw("PETIF_Fault", self._fault or "the server is being initialised; try again", "PETifConverter")
        return self._runner

    def _readable(self, path: str) -> Any:
        try:
            return self._service().readable(path)
        except ConversionError as error:
            throw("PETIF_BadPath", str(error), "PETifConverter")

    def _add_files(self, paths: list[str]) -> None:
        refused = self._service().submit_files(paths).refused
        if refused:
            more = f" ({len(refused)} of {len(paths)} files were refused)" if len(paths) > 1 else ""
            throw("PETIF_Refused", refused[0].reason + more, "AddFiles")

    def _add_folder(self, path: str) -> None:
        folder = self._readable(path)
        try:
            paths = [str(frame) for frame in frames_in(folder)]
        except OSError as error:
            throw("PETIF_BadPath", f"{folder}: not a folder that can be listed ({error.strerror})", "AddFolder")
        self._add_files(paths)
