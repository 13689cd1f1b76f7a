"""The Tango device class `PETifConverter`: translates attributes and commands to the job service; computes nothing."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import tango
from pydantic import ValidationError
from tango.server import attribute, command

from tango_server.caps import LONGEST_ID, LONGEST_TEXT, MOST_PATHS
from tango_server.configuration import Configuration
from tango_server.conversion.errors import ConversionError
from tango_server.conversion.provenance import package_version
from tango_server.counters import COUNTERS, Counters, free_space
from tango_server.jobs.capacity import BacklogFullError, DiskFullError
from tango_server.jobs.condition import condition
from tango_server.jobs.database import LedgerBusyError, LedgerDamagedError, LedgerError
from tango_server.jobs.folder_watch import FolderWatch, open_watch
from tango_server.jobs.history import UnknownIdError
from tango_server.jobs.intake import explain
from tango_server.jobs.opening import open_runner
from tango_server.jobs.runner import JobRunner
from tango_server.jobs.vocabulary import Snapshot
from tango_server.log_stream import TangoStream
from tango_server.messages import CancelQuery, ReportsQuery, SubmitQuery
from tango_server.notifier import Notifier
from tango_server.observability import Observability
from tango_server.recipe import Recipe as ConversionRecipe
from tango_server.settings import ConfigurationError, Settings
from tango_server.wire import from_wire, require_at_most, throw, to_latin, to_wire

_log = logging.getLogger(__name__)

_CONFIGURED: dict[str, Callable[[ConversionRecipe], Any]] = {
    "ConfRotation": lambda recipe: recipe.rotation,
    "ConfFlip": lambda recipe: recipe.flip,
    "ConfType": lambda recipe: recipe.pixel_type or "source",
    "Recipe": to_wire,
}


def _configured(name: str, dtype: Any, label: str, doc: str, unit: str = "") -> attribute:
    """Return a read-only attribute that shows a part of the server's recipe and pushes its changes."""
    value = _CONFIGURED[name]
    return attribute(
        fget=lambda device: value(device.current_recipe()),
        dtype=dtype,
        label=label,
        doc=doc,
        unit=unit,
        format="%d" if dtype is int else "%s",
        change_event_implemented=True,
        change_event_detect=False,
    )


class PETifConverter(Counters):
    """Converts frames of a Perkin-Elmer detector: rotates, flips, retypes and writes them for other programs."""

    configuration: ClassVar[Configuration] = Configuration()
    """What the program that starts the server gives; device properties go over it."""

    ConfRotation = _configured("ConfRotation", int, "Rotation", "Rotation of the image, counter-clockwise", "deg")
    ConfFlip = _configured("ConfFlip", str, "Flip", "Flip after the rotation: none, 0 (up-down), 1 (left-right), both")
    ConfType = _configured("ConfType", str, "Pixel type", "Pixel type of the output; source: as the input")
    Recipe = _configured("Recipe", str, "Conversion recipe", "The recipe for requests that bring none, as JSON")

    @attribute(
        label="Workers",
        unit="processes",
        format="%d",
        doc="Conversions at a time; set by the property numworkers and Init",
        dtype=int,
        change_event_implemented=True,
        change_event_detect=False,
    )
    def NumWorkers(self) -> int:
        """Conversions at a time."""
        return self._workers()

    @property
    def numbers(self) -> Snapshot:
        """The numbers that the counters show."""
        return self._runner.snapshot if self._runner else Snapshot()

    def current_recipe(self) -> ConversionRecipe:
        """Return the recipe for requests that bring none."""
        return self._service().recipe

    def init_device(self) -> None:
        """Read the properties and start a fresh service; a wrong setting leaves the device alive, in FAULT."""
        self._runner: JobRunner | None = None
        self._settings: Settings | None = None
        self._observability: Observability | None = None
        self._watch: FolderWatch | None = None
        self._fault = ""
        super().init_device()
        self.add_version_info("petif-bluesky", package_version())
        for name in ("State", "Status"):
            self.set_change_event(name, True, False)  # noqa: FBT003 - Tango's own signature
        self._notifier = Notifier(self, self._values)
        try:
            self._settings = self.configuration.settings(self.set_properties(), self.get_name())
            self._observability = Observability(
                self._settings, TangoStream(self), lambda: self.numbers, lambda: self._condition()[0]
            )
            self._runner = open_runner(self._settings, self._changed)
            self._watch = open_watch(self._settings, self._runner)
        except ValidationError as error:
            self._fault = f"The configuration is wrong: {explain(error)}. Correct it, then call Init."
        except (ConfigurationError, LedgerError, ImportError) as error:
            self._fault = f"{error} Then call Init."
        if self._fault:
            _log.error("%s", self._fault)
        self._notifier.wake()

    def delete_device(self) -> None:
        """Let running conversions finish; what is not finished stays on the ledger.

        Part of Init. That ends no service that works before it has the properties for the next one.
        """
        if not tango.Util.instance().is_svr_shutting_down():
            self._need_properties()
        self._notifier.stop()
        if self._watch:
            self._watch.close()
        if self._runner:
            self._runner.close()
            self._runner = None
        if self._observability:
            self._observability.close()

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
        """Convert the frames of a folder; it is gone through after the answer."""
        if not self._readable(path).is_dir():
            throw("PETIF_BadPath", f"{path}: found no folder; expected one that this host sees. Check it.", "AddFolder")
        with self._room("AddFolder") as service:
            service.submit_folder(path)
        return 0

    @command(dtype_in=str, doc_in="Path of a file or of a folder", dtype_out=int, doc_out="0")
    def AddFileOrDir(self, path: str) -> int:
        """Convert a file or the frames of a folder, which is gone through after the answer."""
        if self._readable(path).is_dir():
            return int(self.AddFolder(path))
        self._add_files([path])
        return 0

    @command
    def ResetStats(self) -> None:
        """Start the counters from zero; RetryFailed leaves what failed before alone."""
        with self._room("ResetStats") as service:
            service.reset_statistics()

    @command
    def Acknowledge(self) -> None:
        """End the alarm about frames that failed so far."""
        self._service().acknowledge()

    @command
    def Pause(self) -> None:
        """Start no conversion any more; those that run go on, and requests are accepted. Kept over restarts."""
        with self._room("Pause") as service:
            service.pause(paused=True)

    @command
    def Resume(self) -> None:
        """Go on after Pause."""
        with self._room("Resume") as service:
            service.pause(paused=False)

    @command(dtype_out=int, doc_out="Number of frames that are tried again")
    def RetryFailed(self) -> int:
        """Try the frames again that have failed since ResetStats; they stay the same jobs."""
        with self._room("RetryFailed") as service:
            return service.retry_failed()

    @command(
        dtype_in=str,
        doc_in='JSON {"job_ids": [...]} or {"run_uid": ...} or {"all": true}',
        dtype_out=str,
        doc_out='JSON {"cancelled": n}',
    )
    def Cancel(self, text: str) -> str:
        """Convert these frames no more; those that a worker has already are finished."""
        query = from_wire(CancelQuery, text, "Cancel")
        with self._room("Cancel") as service:
            return to_wire(service.cancel(query))

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
        query = from_wire(SubmitQuery, text, "Submit")
        with self._room("Submit") as service:
            return to_wire(service.submit(query))

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
            require_at_most(LONGEST_ID, len(run_uid), "characters of a run uid", "GetRunStatistics")
            return to_wire(self._service().run_statistics(run_uid))
        except UnknownIdError as error:
            throw("PETIF_UnknownId", str(error), "GetRunStatistics")

    @command(dtype_in=str, doc_in="JSON of a recipe")
    def SetRecipe(self, text: str) -> None:
        """Take another recipe for requests that bring none; kept over restarts."""
        recipe = from_wire(ConversionRecipe, text, "SetRecipe")
        try:
            with self._room("SetRecipe") as service:
                service.set_recipe(recipe)
        except ConversionError as error:
            throw("PETIF_BadPath", str(error), "SetRecipe")

    def _need_properties(self) -> None:
        try:
            self.get_device_properties()
        except tango.DevFailed as error:
            throw(
                "PETIF_NoDatabase",
                f"the properties can't be read from the Tango database ({error.args[0].desc.strip()}). The device goes "
                "on with the settings it has. Call Init again once the database is back.",
                "Init",
            )

    def _changed(self, runner: JobRunner) -> None:
        if runner is self._runner:  # a service of before Init has nothing to say any more
            self._notifier.wake()

    def _values(self) -> dict[str, Any]:
        numbers = self.numbers
        word, status = self._condition()
        self.set_state(getattr(tango.DevState, word))  # what Tango's own code reports in events
        self.set_status(status)
        values: dict[str, Any] = {name: value(numbers) for name, value in COUNTERS.items()}
        values["NumWorkers"] = self._workers()
        values["FreeSpace"] = free_space(numbers)
        if self._runner:
            values.update({name: value(self._runner.recipe) for name, value in _CONFIGURED.items()})
        return {**values, "State": getattr(tango.DevState, word), "Status": status}

    def _condition(self) -> tuple[str, str]:
        word, status = condition(self.numbers, self._fault or (self._runner.fault if self._runner else ""))
        if self._watch and self._watch.trouble:
            status = f"{status}. {self._watch.trouble}"
        return word, to_latin(self._observability.completed(status) if self._observability else status)

    def _workers(self) -> int:
        return self._settings.numworkers if self._settings else 0

    def _service(self) -> JobRunner:
        if self._runner is None:
            throw("PETIF_Fault", self._fault or "the server is being initialised; try again", "PETifConverter")
        return self._runner

    @contextmanager
    def _room(self, origin: str) -> Iterator[JobRunner]:
        """Translate what may go wrong at present but not for ever; the client may call again."""
        try:
            yield self._service()
        except BacklogFullError as error:
            throw("PETIF_BacklogFull", str(error), origin)
        except DiskFullError as error:
            throw("PETIF_DiskFull", str(error), origin)
        except LedgerDamagedError as error:
            throw("PETIF_Fault", str(error), origin)
        except (LedgerBusyError, TimeoutError) as error:
            throw("PETIF_Busy", str(error) or "it takes long; look at the queue", origin)

    def _readable(self, path: str) -> Path:
        try:
            return self._service().readable(path)
        except ConversionError as error:
            throw("PETIF_BadPath", str(error), "PETifConverter")

    def _add_files(self, paths: list[str]) -> None:
        require_at_most(MOST_PATHS, len(paths), "paths", "AddFiles")
        require_at_most(LONGEST_TEXT, sum(map(len, paths)), "characters of paths", "AddFiles")
        with self._room("AddFiles") as service:
            refused = service.submit_files(paths).refused
        if refused:
            more = f" ({len(refused)} of {len(paths)} files were refused)" if len(paths) > 1 else ""
            throw("PETIF_Refused", refused[0].reason + more, "AddFiles")
