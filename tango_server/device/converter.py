"""The Tango device class `PETifConverter`: maps attributes and commands to the job service; computes nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import tango
from tango.server import attribute, command

from tango_server.application import Application
from tango_server.conversion.provenance import package_version
from tango_server.device.change_events import Notifier
from tango_server.device.counters import COUNTERS, Counters, free_space
from tango_server.device.log_stream import TangoStream
from tango_server.device.wire import from_wire, recipe_from_wire, require_at_most, throw, to_latin, to_wire, translated
from tango_server.jobs.runner import JobRunner
from tango_server.jobs.state_machine.snapshot import Snapshot
from tango_server.limits import LONGEST_ID, LONGEST_TEXT, MANY_REPORTS, MOST_PATHS
from tango_server.messages import CancelQuery, FolderQuery, MissingQuery, ReportsQuery, SubmitQuery
from tango_server.recipe import Recipe as ConversionRecipe
from tango_server.settings import Configuration

_CONFIGURED: dict[str, Callable[[ConversionRecipe], Any]] = {
    "ConfRotation": lambda recipe: recipe.rotation,
    "ConfFlip": lambda recipe: recipe.flip,
    "ConfType": lambda recipe: recipe.pixel_type or "source",
    "Recipe": to_wire,
}


def _configured(name: str, dtype: Any, label: str, doc: str, unit: str = "") -> attribute:
    """Return a read-only attribute for a part of the server's recipe, with change events."""
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
    """Converts frames of a Perkin-Elmer detector: rotates, flips, changes the pixel type and the file format."""

    configuration: ClassVar[Configuration] = Configuration()
    """Settings from the program that starts the server; device properties override them."""

    ConfRotation = _configured("ConfRotation", int, "Rotation", "Rotation of the image, counter-clockwise", "deg")
    ConfFlip = _configured("ConfFlip", str, "Flip", "Flip after the rotation: none, 0 (up-down), 1 (left-right), both")
    ConfType = _configured("ConfType", str, "Pixel type", "Pixel type of the output; source: same as the input")
    Recipe = _configured("Recipe", str, "Conversion recipe", "Default recipe, for requests without one, as JSON")

    @attribute(
        label="Workers",
        unit="processes",
        format="%d",
        doc="Number of parallel conversions, from the property numworkers; Init applies a change",
        dtype=int,
        change_event_implemented=True,
        change_event_detect=False,
    )
    def NumWorkers(self) -> int:
        """Number of parallel conversions."""
        return self._life.workers

    @property
    def numbers(self) -> Snapshot:
        """The numbers behind the counters."""
        return self._life.numbers

    def current_recipe(self) -> ConversionRecipe:
        """Return the default recipe, for requests without one."""
        with self._service("Recipe") as service:
            return service.recipe

    def init_device(self) -> None:
        """Read the properties and start a new service; an invalid setting leaves the device running, in FAULT."""
        self._life = Application()
        super().init_device()
        self.add_version_info("petif-bluesky", package_version())
        for name in ("State", "Status"):
            self.set_change_event(name, True, False)  # noqa: FBT003 - Tango's own signature
        self._notifier = Notifier(self, self._values)
        self._life.open(
            lambda: self.configuration.settings(self.set_properties(), self.get_name()),
            TangoStream(self),
            self._notifier.wake,
        )
        self._notifier.wake()

    def delete_device(self) -> None:
        """Let running conversions finish; unfinished jobs stay on the ledger.

        Part of Init, which stops a working service only once it has the properties for the next one.
        """
        if not tango.Util.instance().is_svr_shutting_down():
            self._need_properties()
        self._notifier.stop()
        self._life.close()

    def dev_state(self) -> tango.DevState:
        """Return the Tango state of the service."""
        return getattr(tango.DevState, self._life.state()[0])

    def dev_status(self) -> str:
        """Return the status message of the service."""
        return to_latin(self._life.state()[1])

    @command(dtype_in=[str], doc_in="Paths of files to convert with the default recipe; each call creates new jobs")
    def AddFiles(self, paths: list[str]) -> None:
        """Convert files with the default recipe."""
        self._add_files(paths)

    @command(
        dtype_in=str,
        doc_in="Path of a folder; its frames are converted, except darks",
        dtype_out=int,
        doc_out="0",
    )
    def AddFolder(self, path: str) -> int:
        """Convert the frames of a folder; returns at once, the folder is scanned afterwards."""
        with self._service("AddFolder") as service:
            service.submit_folder(path)
        return 0

    @command(dtype_in=str, doc_in="Path of a file or a folder", dtype_out=int, doc_out="0")
    def AddFileOrDir(self, path: str) -> int:
        """Convert a file, or the frames of a folder, which is scanned after the command returns."""
        with self._service("AddFileOrDir") as service:
            is_folder = service.intake.source(path).is_dir()
        if is_folder:
            return int(self.AddFolder(path))
        self._add_files([path])
        return 0

    @command
    def ResetStats(self) -> None:
        """Reset the counters to zero; RetryFailed then ignores earlier failures."""
        with self._service("ResetStats") as service:
            service.reset_statistics()

    @command
    def Acknowledge(self) -> None:
        """Clear the alarm about frames that have failed so far."""
        with self._service("Acknowledge") as service:
            service.acknowledge()

    @command
    def Pause(self) -> None:
        """Start no more conversions; running ones finish, and requests are still accepted. Survives a restart."""
        with self._service("Pause") as service:
            service.pause(paused=True)

    @command
    def Resume(self) -> None:
        """Continue after Pause."""
        with self._service("Resume") as service:
            service.pause(paused=False)

    @command(dtype_out=int, doc_out="Number of frames to be retried")
    def RetryFailed(self) -> int:
        """Retry the frames that have failed since ResetStats; they keep their job ids."""
        with self._service("RetryFailed") as service:
            return service.retry_failed()

    @command(
        dtype_in=str,
        doc_in='JSON {"job_ids": [...]} or {"run_uid": ...} or {"all": true}',
        dtype_out=str,
        doc_out='JSON {"cancelled": n}',
    )
    def Cancel(self, text: str) -> str:
        """Cancel these jobs; those that are already being converted are finished."""
        query = from_wire(CancelQuery, text, "Cancel")
        with self._service("Cancel") as service:
            return to_wire(service.cancel(query))

    @command(dtype_in=str, doc_in="Path within the roots", dtype_out=bool, doc_out="Whether it exists")
    def TestOsExists(self, path: str) -> bool:
        """Whether this path exists on this host, within the roots."""
        with self._service("TestOsExists") as service:
            return service.intake.source(path).exists()

    @command(dtype_in=str, doc_in="Path within the roots", dtype_out=bool, doc_out="Whether it is a folder")
    def TestOsIsDir(self, path: str) -> bool:
        """Whether this path is a folder on this host, within the roots."""
        with self._service("TestOsIsDir") as service:
            return service.intake.source(path).is_dir()

    @command(dtype_in=str, doc_in="Path within the roots", dtype_out=bool, doc_out="Whether it is a file")
    def TestOsIsFile(self, path: str) -> bool:
        """Whether this path is a file on this host, within the roots."""
        with self._service("TestOsIsFile") as service:
            return service.intake.source(path).is_file()

    @command(
        dtype_in=str, doc_in='JSON {"folder": PATH}', dtype_out=str, doc_out='JSON {"frames": [...], "more": bool}'
    )
    def ListFolder(self, text: str) -> str:
        """List the frames that AddFolder would convert, by their paths on this host."""
        query = from_wire(FolderQuery, text, "ListFolder")
        with self._long_call("ListFolder") as service:
            return to_wire(service.intake.listed(query))

    @command(dtype_in=str, doc_in='JSON {"paths": [...]}', dtype_out=str, doc_out='JSON {"missing": [...]}')
    def FindMissing(self, text: str) -> str:
        """Return which of these paths are not readable files on this host, and why."""
        query = from_wire(MissingQuery, text, "FindMissing")
        with self._long_call("FindMissing") as service:
            return to_wire(service.intake.missing(query))

    @command(
        dtype_in=str,
        doc_in='JSON {"requests": [FrameRequest...]}, with "runs" and "run_counts"',
        dtype_out=str,
        doc_out="JSON: jobs, refused",
    )
    def Submit(self, text: str) -> str:
        """Submit requests; returns once they are safely stored."""
        query = from_wire(SubmitQuery, text, "Submit")
        with self._service("Submit") as service:
            return to_wire(service.intake.submit(query))

    @command(
        dtype_in=str,
        doc_in='JSON {"job_ids": [...]} or {"run_uid": ...} or {"latest": true}, with "outcome", "limit" and "after"',
        dtype_out=str,
        doc_out='JSON: reports, pending; with "after", position',
    )
    def GetReports(self, text: str) -> str:
        """Return the reports of jobs or of a run, or the latest reports; an unknown id is an error."""
        query = from_wire(ReportsQuery, text, "GetReports")
        call = self._long_call if query.limit > MANY_REPORTS else self._service
        with call("GetReports") as service:
            return to_wire(service.reports(query))

    @command(dtype_in=str, doc_in="Run uid", dtype_out=str, doc_out="RunStatistics as JSON")
    def GetRunStatistics(self, run_uid: str) -> str:
        """Return the statistics of a run; an unknown run is an error."""
        require_at_most(LONGEST_ID, len(run_uid), "characters of a run uid", "GetRunStatistics")
        with self._service("GetRunStatistics") as service:
            return to_wire(service.history.run_statistics(run_uid))

    @command(dtype_in=str, doc_in="Recipe as JSON, or the name of a preset")
    def SetRecipe(self, text: str) -> None:
        """Set the default recipe, for requests without one. Survives a restart."""
        recipe = recipe_from_wire(text, "SetRecipe")
        with self._service("SetRecipe") as service:
            service.set_recipe(recipe)

    def _need_properties(self) -> None:
        try:
            self.get_device_properties()
        except tango.DevFailed as error:
            throw(
                "PETIF_NoDatabase",
                f"Cannot read the properties from the Tango database: {error.args[0].desc.strip()}. The device keeps "
                "its current settings. Call Init again once the database is back.",
                "Init",
            )

    def _values(self) -> dict[str, Any]:
        numbers, life = self.numbers, self._life
        word, status = life.state()
        state, status = getattr(tango.DevState, word), to_latin(status)
        self.set_state(state)  # what Tango itself reports in events
        self.set_status(status)
        values: dict[str, Any] = {name: value(numbers) for name, value in COUNTERS.items()}
        values["NumWorkers"] = life.workers
        values["FreeSpace"] = free_space(numbers)
        recipe = life.recipe
        if recipe is not None:
            values.update({name: value(recipe) for name, value in _CONFIGURED.items()})
        return {**values, "State": state, "Status": status}

    @contextmanager
    def _service(self, origin: str) -> Iterator[JobRunner]:
        with translated(origin):
            yield self._life.service

    @contextmanager
    def _long_call(self, origin: str) -> Iterator[JobRunner]:
        """Yield the service for a long call, while other clients can use the device."""
        with tango.AutoTangoAllowThreads(self), translated(origin), self._life.in_turn() as service:
            yield service

    def _add_files(self, paths: list[str]) -> None:
        require_at_most(MOST_PATHS, len(paths), "paths", "AddFiles")
        require_at_most(LONGEST_TEXT, sum(map(len, paths)), "characters of paths", "AddFiles")
        with self._service("AddFiles") as service:
            refused = service.submit_files(paths).refused
        if refused:
            more = f" ({len(refused)} of {len(paths)} files were refused)" if len(paths) > 1 else ""
            throw("PETIF_Refused", refused[0].reason + more, "AddFiles")
