"""The thread that watches one folder: scans, submits, queries reports and updates the store."""

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tango_server.conversion.errors import ConversionError, PathError
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.path_map import PathMap
from tango_server.conversion.files.roots import ANYWHERE
from tango_server.conversion.files.series_names import module_of
from tango_server.conversion.lambda_detector.modules import module_files
from tango_server.conversion.tiff.parser import read_structure
from tango_server.conversion.tiff.record import read_provenance
from tango_server.jobs.capacity import NoRoomError
from tango_server.jobs.clock import now
from tango_server.jobs.frame_listing import FrameLister
from tango_server.jobs.intake import Intake
from tango_server.jobs.ledger.database import LedgerBusyError
from tango_server.jobs.ledger.history import UnknownIdError
from tango_server.jobs.validation import NO_MAP, translated
from tango_server.jobs.watch.folder_state import WatchedFolder
from tango_server.jobs.watch.frame_reports import FrameReports, Reports
from tango_server.jobs.watch.known import Identity, Wanted
from tango_server.jobs.watch.sqlite_store import KnownFiles, WatchStore
from tango_server.messages import FrameReport, ReportsAnswer, ReportsQuery, SubmitQuery
from tango_server.recipe import NewFile, Recipe
from tango_server.sqlite.wal_file import sqlite_integer

_log = logging.getLogger(__name__)

CHECKS_PER_SCAN = 100
_BATCH = 200
_ROUNDS = 10


class Jobs(Protocol):
    """What a watch needs of the job service; `JobRunner` provides it."""

    @property
    def intake(self) -> Intake:
        """Accepts requests, and resolves paths."""

    def reports(self, query: ReportsQuery) -> ReportsAnswer:
        """Return the reports of jobs; raise `UnknownIdError`."""

    @property
    def recipe(self) -> Recipe:
        """The default recipe, which a watch uses."""


@dataclass(frozen=True, slots=True)
class WatchRules:
    """What to watch. `folders` are absolute, `interval` is in s.

    With `existing=False`, files that exist when a folder is watched for the first time are ignored.
    `settle` is in s: see `WatchedFolder`.
    `only_written` are the write roots that are not read roots, `paths` maps folders in recipes to this host.
    """

    folders: tuple[Path, ...]
    existing: bool = False
    recursive: bool = True
    interval: float = 1.0
    settle: float = 0.0
    only_written: tuple[Path, ...] = ()
    paths: PathMap = NO_MAP

    def excluded(self, recipe: Recipe) -> tuple[Path, ...]:
        """Return the folders that are not scanned, because the recipe writes its outputs there.

        Outputs elsewhere are recognised by their provenance.
        """
        if not isinstance(recipe.output, NewFile):
            return ()
        with suppress(PathError):  # a folder that can't be mapped gets no outputs
            output = translated(recipe, self.paths).output
            if isinstance(output, NewFile) and output.folder is not None:
                return (*self.only_written, Path(output.folder).resolve())
        return self.only_written


class Watcher(threading.Thread):
    """Watches one folder, independently of other folders whose file system may hang."""

    def __init__(
        self,
        folder: Path,
        rules: WatchRules,
        jobs: Jobs,
        store: WatchStore,
        *,
        on_report: Callable[[FrameReport], None],
    ) -> None:
        super().__init__(name=f"petif-watch-{folder.name}", daemon=True)
        self.folder = folder
        self.closing = threading.Event()
        self.problem = ""
        self.begun = False
        self.idle = False
        self._rules = rules
        self._jobs = jobs
        self._store = store
        self._on_report = on_report
        self._root: Path | None = None
        self._known: KnownFiles
        self._files: WatchedFolder
        self._frames = FrameReports(self._reports_of, on_report)
        self._lister: FrameLister

    def run(self) -> None:
        """Scan repeatedly, with pauses at least as long as a scan."""
        pause = 0.0
        while not self.closing.wait(pause):
            started = time.monotonic()
            try:
                self._report_problem(self._scan())
            except Exception as error:  # noqa: BLE001 - thread boundary: it must not stop
                if self.closing.is_set():  # closed while it was blocked
                    return
                _log.exception("%s: unexpected error while scanning this watched folder", self.folder)
                self._report_problem(f"{self.folder}: scanning failed, retrying: {error!r}. Check the log.")
            took = time.monotonic() - started
            pause = max(self._rules.interval - took, took)

    def _scan(self) -> str:
        """Scan once and act on it; return a message about a problem, empty if there is none."""
        try:
            root = self._jobs.intake.source(str(self.folder))
            if root != self._root or self._known.failed:
                self._open(root)
            listing = self._lister.scan(self._rules.excluded(self._jobs.recipe))
        except PathError as error:
            return f"{error} This folder is not watched."
        except OSError as error:
            self.idle = True
            reason = error.strerror or str(error)
            return f"{self.folder}: cannot list this folder: {reason}. It is not watched until this is fixed."
        wall = now().wall
        self._files.listed(listing, wall)
        self._write()
        self.begun = True
        self._query_reports(root)
        self._frames.poll(self.closing.is_set)
        self._check(root)
        problem = self._submit(root)
        self._files.forget(wall)
        self._write()
        self.idle = self._files.idle and self._frames.idle
        if listing.unlisted and not problem:
            name, reason = next(iter(listing.unlisted.items()))
            problem = f"{root / name}: cannot list this folder: {reason}. It is not watched until this is fixed."
        return problem

    def _open(self, root: Path) -> None:
        """Open the state of the folder; again if its path now leads elsewhere."""
        self._known = self._store.open_folder(root)
        self._files = WatchedFolder(
            self._known, self._known.past, take_existing=self._rules.existing, settle=self._rules.settle
        )
        present = self._files.present
        self._lister = FrameLister(root, present, recursive=self._rules.recursive)
        self._root = root
        _log.info("%s: watching, %d files known", root, len(present))

    def _query_reports(self, root: Path) -> None:
        """Query the reports of submitted files; continue as long as all are there."""
        for _ in range(_ROUNDS):
            queried = self._files.under_way(_BATCH)
            if not queried or self.closing.is_set():
                return
            before = {name: _identity(root / name) for name in queried}
            wall = now().wall
            reports = self._reports_of(list(queried.values()))
            for name, job_id in queried.items():
                if job_id not in reports:
                    self._files.lost(name)
                    continue
                report = reports[job_id]
                if report is None:
                    self._files.pending(name, before[name], wall)
                else:
                    self._files.reported(name, report, _identity(root / name))
                    self._on_report(report)
                    self._frames.add(report)
            if None in reports.values():
                return

    def _reports_of(self, job_ids: list[str]) -> Reports:
        """Return the report of each job that is known, None for one that has none yet."""
        try:
            answer = self._jobs.reports(ReportsQuery(job_ids=job_ids, limit=len(job_ids)))
        except UnknownIdError:
            if len(job_ids) == 1:
                return {}
            half = len(job_ids) // 2
            return {**self._reports_of(job_ids[:half]), **self._reports_of(job_ids[half:])}
        return {**dict.fromkeys(job_ids), **{report.job_id or "": report for report in answer.reports}}

    def _check(self, root: Path) -> None:
        for name in self._files.to_check(CHECKS_PER_SCAN):
            self._files.checked(name, _identity(root / name))

    def _submit(self, root: Path) -> str:
        """Submit wanted files, recording each batch; return a message if there is no room."""
        wanted = self._files.wanted()
        for start in range(0, len(wanted), _BATCH):
            if self.closing.is_set():
                break
            found = self._examined(root, wanted[start : start + _BATCH])
            self._write()
            try:
                self._submit_some(root, found)
            except (NoRoomError, LedgerBusyError) as error:
                return f"{self.folder}: {len(wanted) - start} frames wait to be accepted: {error}"
            finally:
                self._write()
        return ""

    def _examined(self, root: Path, wanted: Sequence[Wanted]) -> list[Wanted]:
        """Return the files to submit, without vanished files and our own outputs.

        The recipe may have changed since the scan, which may have found the first output of the new one.
        """
        found = []
        excluded = self._rules.excluded(self._jobs.recipe)
        for one in wanted:
            path = root / one.name
            if any(folder in excluded for folder in path.parents):
                continue  # the next scan excludes it
            identity = _identity(path)
            if identity is None and not os.path.lexists(path):
                continue  # the next scan will notice
            try:
                is_output = _is_output(path)
            except Exception:  # noqa: BLE001 - one file must not block the others; its job reports the error
                _log.exception("%s: cannot check this file", path)
                is_output = False
            if is_output:
                _log.info("%s: ignored, it is an output itself", path)
                self._files.left(one, identity)
            else:
                self._files.intended(one, identity)
                found.append(one)
        return found

    def _submit_some(self, root: Path, found: Sequence[Wanted]) -> None:
        if not found:
            return
        requests = [{"source": str(root / one.name), "key": self._key(root, one)} for one in found]
        answer = self._jobs.intake.submit(SubmitQuery(requests=requests))
        if not answer.refused:
            for one, job in zip(found, answer.jobs, strict=True):
                self._files.submitted(one, job.job_id)
        elif len(found) > 1:  # the same keys give the same jobs: one by one shows which was refused
            for one in found:
                self._submit_some(root, [one])
        else:
            refused = answer.refused[0]
            _log.warning("%s", refused.reason)
            self._files.left(found[0], _identity(root / found[0].name))
            self._on_report(
                FrameReport(source=refused.source, outcome="failed", reason=refused.reason, finished=now().wall)
            )

    def _key(self, root: Path, wanted: Wanted) -> str:
        """Return the key of a request, the same after a crash between acceptance and recording."""
        digest = hashlib.sha256(os.fsencode(root / wanted.name)).hexdigest()[:32]
        return f"watch:{self._store.token}:{digest}:{wanted.generation}"

    def _write(self) -> None:
        self._known.write(self._files.past)

    def _report_problem(self, problem: str) -> None:
        """Log a problem when it starts and when it ends, not at every scan."""
        if problem and not self.problem:
            _log.warning("%s", problem)
        elif self.problem and not problem:
            _log.warning("%s: watching again", self.folder)
        self.problem = problem


def _identity(path: Path) -> Identity | None:
    """Return the identity of a file; of a Lambda's first module that of all modules, since each may come late."""
    try:
        files = (path,) if module_of(path.name) is None else module_files(FrameLocation(path), ANYWHERE, None).files
        found = [file.stat() for file in files]
    except (OSError, ConversionError):
        return None
    size, modified = sum(each.st_size for each in found), max(each.st_mtime_ns for each in found)
    return Identity(sqlite_integer(size), sqlite_integer(modified))


def _is_output(path: Path) -> bool:
    """Whether a file is one of our outputs; they appear complete, so one check is enough."""
    try:
        return read_provenance(read_structure(path)) is not None
    except ConversionError:  # its job will report the error
        return False
