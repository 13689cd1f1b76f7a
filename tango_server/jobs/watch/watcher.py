"""The thread that watches one folder: it looks, submits, asks for reports and keeps the book."""

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
from tango_server.conversion.files.path_map import PathMap
from tango_server.conversion.tiff.parser import read_structure
from tango_server.conversion.tiff.provenance import read_provenance
from tango_server.jobs.capacity import NoRoomError
from tango_server.jobs.clock import now
from tango_server.jobs.frame_listing import FrameLister
from tango_server.jobs.intake import Intake
from tango_server.jobs.ledger.database import LedgerBusyError
from tango_server.jobs.ledger.history import UnknownIdError
from tango_server.jobs.validation import NO_MAP, translated
from tango_server.jobs.watch.folder_state import WatchedFolder
from tango_server.jobs.watch.known import Identity, Wanted
from tango_server.jobs.watch.sqlite_store import KnownFiles, WatchStore
from tango_server.messages import FrameReport, ReportsAnswer, ReportsQuery, SubmitQuery
from tango_server.recipe import NewFile, Recipe
from tango_server.sqlite.wal_file import sqlite_integer

_log = logging.getLogger(__name__)

CHECKS_PER_LOOK = 100
_BATCH = 200
_ROUNDS = 10


class Jobs(Protocol):
    """What a watch asks of the job service; `JobRunner` has it."""

    @property
    def intake(self) -> Intake:
        """Accepts requests, and resolves paths."""

    def reports(self, query: ReportsQuery) -> ReportsAnswer:
        """Return the reports of jobs; raise `UnknownIdError`."""

    @property
    def recipe(self) -> Recipe:
        """The recipe for requests that bring none, as those of a watch."""


@dataclass(frozen=True, slots=True)
class WatchRules:
    """What is watched. `folders` are absolute, `interval` is in s.

    With `existing=False`, files that are in a folder when it is watched for the first time ever are left.
    `only_written` are the write roots that are no read roots, `paths` how recipes name folders of this host.
    """

    folders: tuple[Path, ...]
    existing: bool = False
    recursive: bool = True
    interval: float = 1.0
    only_written: tuple[Path, ...] = ()
    paths: PathMap = NO_MAP

    def excluded(self, recipe: Recipe) -> tuple[Path, ...]:
        """Return the folders that are not looked into, since the recipe puts its outputs there.

        Outputs that lie elsewhere are told by their provenance.
        """
        if not isinstance(recipe.output, NewFile):
            return ()
        with suppress(PathError):  # no output can go to a folder that has no name here
            output = translated(recipe, self.paths).output
            if isinstance(output, NewFile) and output.folder is not None:
                return (*self.only_written, Path(output.folder).resolve())
        return self.only_written


class Watcher(threading.Thread):
    """Watches one folder, so that a file system that hangs stops no other one."""

    def __init__(
        self,
        folder: Path,
        rules: WatchRules,
        jobs: Jobs,
        book: WatchStore,
        *,
        on_report: Callable[[FrameReport], None],
    ) -> None:
        super().__init__(name=f"petif-watch-{folder.name}", daemon=True)
        self.folder = folder
        self.closing = threading.Event()
        self.trouble = ""
        self.begun = False
        self.idle = False
        self._rules = rules
        self._jobs = jobs
        self._book = book
        self._on_report = on_report
        self._root: Path | None = None
        self._known: KnownFiles
        self._files: WatchedFolder
        self._lister: FrameLister

    def run(self) -> None:
        """Look again and again, with pauses that are at least as long as a look takes."""
        pause = 0.0
        while not self.closing.wait(pause):
            started = time.monotonic()
            try:
                self._have_trouble(self._look())
            except Exception as error:  # noqa: BLE001 - the boundary of this thread, which must not end
                if self.closing.is_set():  # it was left behind, and what it works with is closed
                    return
                _log.exception("%s: a look at this watched folder failed", self.folder)
                self._have_trouble(f"{self.folder}: a look at it failed ({error!r}); it is tried again. See the log.")
            took = time.monotonic() - started
            pause = max(self._rules.interval - took, took)

    def _look(self) -> str:
        """Take one look and act on it; return what people should know."""
        try:
            root = self._jobs.intake.source(str(self.folder))
            if root != self._root or self._known.failed:
                self._open(root)
            listing = self._lister.look(self._rules.excluded(self._jobs.recipe))
        except PathError as error:
            return f"{error} It is not watched."
        except OSError as error:
            self.idle = True
            reason = error.strerror or str(error)
            return f"{self.folder}: can't be listed ({reason}); expected a folder. It is watched again once it can be."
        wall = now().wall
        self._files.listed(listing, wall)
        self._write()
        self.begun = True
        self._ask(root)
        self._check(root)
        trouble = self._submit(root)
        self._files.forget(wall)
        self._write()
        self.idle = self._files.idle
        if listing.unlisted and not trouble:
            name, reason = next(iter(listing.unlisted.items()))
            trouble = f"{root / name}: can't be listed ({reason}), and is not watched until it can be."
        return trouble

    def _open(self, root: Path) -> None:
        """Begin with a folder, or with another one if the path leads elsewhere now."""
        self._known = self._book.open_folder(root)
        self._files = WatchedFolder(self._known, self._known.past, take_existing=self._rules.existing)
        present = self._files.present
        self._lister = FrameLister(root, present, recursive=self._rules.recursive)
        self._root = root
        _log.info("%s: watched, %d of its files are known", root, len(present))

    def _ask(self, root: Path) -> None:
        """Ask for the reports of what is under way; while all asked for are there, for more of them."""
        for _ in range(_ROUNDS):
            asked = self._files.under_way(_BATCH)
            if not asked or self.closing.is_set():
                return
            before = {name: _identity(root / name) for name in asked}
            reports = self._reports_of(list(asked.values()))
            for name, job_id in asked.items():
                if job_id not in reports:
                    self._files.lost(name)
                    continue
                report = reports[job_id]
                if report is None:
                    self._files.pending(name, before[name])
                else:
                    self._files.reported(name, report, _identity(root / name))
                    self._on_report(report)
            if None in reports.values():
                return

    def _reports_of(self, job_ids: list[str]) -> dict[str, FrameReport | None]:
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
        for name in self._files.to_check(CHECKS_PER_LOOK):
            self._files.checked(name, _identity(root / name))

    def _submit(self, root: Path) -> str:
        """Submit what is wanted, and write down each batch; return what people should know if there is no room."""
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
        """Return what is to be submitted, without files that have gone again and without our own outputs.

        The recipe may have changed since the look, and what it has found may be the first output of the new one.
        """
        found = []
        excluded = self._rules.excluded(self._jobs.recipe)
        for one in wanted:
            path = root / one.name
            if any(folder in excluded for folder in path.parents):
                continue  # the next look does not reach it
            identity = _identity(path)
            if identity is None and not os.path.lexists(path):
                continue  # the next look tells that it has gone
            try:
                is_output = _is_output(path)
            except Exception:  # noqa: BLE001 - whatever one file holds, the others are watched; its job will tell
                _log.exception("%s: can't be examined", path)
                is_output = False
            if is_output:
                _log.info("%s: left, it is an output itself", path)
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
        elif len(found) > 1:  # the same keys are the same jobs: asked one by one, it is plain which was refused
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
        """Return what makes a request the same job after a crash between its acceptance and its entry in the book."""
        digest = hashlib.sha256(os.fsencode(root / wanted.name)).hexdigest()[:32]
        return f"watch:{self._book.token}:{digest}:{wanted.generation}"

    def _write(self) -> None:
        self._known.write(self._files.past)

    def _have_trouble(self, trouble: str) -> None:
        """Tell the log of trouble when it comes and when it ends, not at every look."""
        if trouble and not self.trouble:
            _log.warning("%s", trouble)
        elif self.trouble and not trouble:
            _log.warning("%s: watched again without trouble", self.folder)
        self.trouble = trouble


def _identity(path: Path) -> Identity | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return Identity(sqlite_integer(found.st_size), sqlite_integer(found.st_mtime_ns))


def _is_output(path: Path) -> bool:
    """Whether a file is one of ours; they appear whole, so a look at a new name is enough."""
    try:
        return read_provenance(read_structure(path)) is not None
    except ConversionError:  # whatever it is, its job will tell
        return False
