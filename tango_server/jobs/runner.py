"""A running conversion service: what the Tango device, the folder watch and a program of one's own talk to."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from pydantic import ValidationError

from tango_server.conversion.errors import PathError
from tango_server.jobs.capacity import FreeSpace
from tango_server.jobs.engine import Engine
from tango_server.jobs.executors.base import Executor
from tango_server.jobs.folder_submission import FolderSubmitter
from tango_server.jobs.housekeeping import Housekeeper, boot
from tango_server.jobs.intake import Intake, requests_for
from tango_server.jobs.ledger.database import Database
from tango_server.jobs.ledger.history import History
from tango_server.jobs.ledger.ledger import Ledger
from tango_server.jobs.mounts import Mounts
from tango_server.jobs.state_machine.events import (
    Accepted,
    FailuresAcknowledged,
    FailuresRetried,
    PauseWanted,
    Selection,
    Snapshot,
    StatisticsReset,
)
from tango_server.jobs.state_machine.machine import JobStateMachine
from tango_server.jobs.state_machine.rules import ServiceRules
from tango_server.messages import (
    CancelAnswer,
    CancelQuery,
    ReportsAnswer,
    ReportsQuery,
    SubmitAnswer,
)
from tango_server.recipe import Recipe
from tango_server.settings import Settings

_log = logging.getLogger(__name__)

_CLOSE_PATIENCE = 5.0
_CANCEL_PATIENCE = 2.5
_ANSWERED_AT_ONCE = 100
"""Files by name that become jobs while the caller waits; more are gathered by a thread."""
_LISTING_PATIENCE = 0.05
_AWAITED_SHOWN = 20
_RECIPE, _PAUSED, _BOOT = "recipe", "paused", "boot"


class JobRunner:
    """One per server start or Init, closed for good by `close`.

    Attributes
    ----------
    intake
        takes requests, and knows what files this host sees
    history
        what became of the jobs
    recipe
        the recipe for requests that bring none

    """

    def __init__(
        self, settings: Settings, database: Database, executor: Executor, changed: Callable[["JobRunner"], None]
    ) -> None:
        """Take up what the ledger has pending. `changed` is called, from a thread, when the numbers have changed."""
        self._database = database
        self._executor = executor
        self.history = History(database)
        self._ledger = Ledger(database)
        self._make_lost_outputs_pending()
        self.recipe = _kept_recipe(self._ledger) or settings.recipe
        service = JobStateMachine(ServiceRules.of(settings), paused=self._ledger.kept(_PAUSED) == "1")
        self._listener = changed
        self._ledger_trouble = ""
        roots = settings.roots()
        self._mounts = Mounts(dict.fromkeys((*roots.read, *roots.write)))
        self._engine = Engine(
            service, self._ledger, executor, roots=settings.roots, mounts=self._mounts, changed=self._changed
        )
        pending = self._ledger.pending()
        if pending:
            _log.info("taking up %d jobs that were not finished", pending)
            self._engine.post(Accepted(pending))
        self.intake = Intake(
            settings,
            self._ledger,
            recipe=lambda: self.recipe,
            waiting=lambda: self._engine.snapshot.queue_length,
            post=self._engine.post,
        )
        self._folder_submitter = FolderSubmitter(self._ledger, self.intake)
        self._housekeeper = Housekeeper(
            database,
            folders=lambda: (*settings.roots().write, *self.intake.output_folders),
            history_days=settings.history_days,
            history_limit=settings.history_limit,
            on_free_space=self._measured,
        )
        self._engine.start()

    @property
    def snapshot(self) -> Snapshot:
        """The numbers now; a job counts from when its acceptance was answered, a folder as one until it is searched."""
        gathering = self._folder_submitter.waiting  # first, so that files that become jobs meanwhile are not missed
        intake, now = self.intake, self._engine.snapshot
        full = now.queue_length >= intake.backlog_limit
        notices = (
            intake.disk_trouble,
            f"the queue is full ({intake.backlog_limit} frames)" if full else "",
            self._set_aside,
        )
        return replace(
            now,
            queue_length=now.queue_length + gathering,
            gathering=self._folder_submitter.found,
            free_space=intake.space.free,
            alarms=tuple(filter(None, notices)),
            warning=intake.disk_warning,
        )

    @property
    def fault(self) -> str:
        """Why nothing can be converted at present; empty: nothing is wrong."""
        return self._engine.fault or self._ledger_trouble

    @property
    def trouble(self) -> str:
        """Why frames can only wait at present, though nothing is wrong with the service; empty: they need not."""
        return self._executor.trouble or self._mounts.last_trouble

    def submit_files(self, paths: Sequence[str]) -> SubmitAnswer:
        """Submit files by name, with the server's recipe; each call makes new jobs.

        Many files are only written down, and become jobs while nobody waits: then the answer is empty, and a file that
        is refused is reported as failed; a name that stands there twice becomes one job.
        """
        if len(paths) <= _ANSWERED_AT_ONCE:
            return self.intake.submit(requests_for(paths))
        self._folder_submitter.gather(paths)
        return SubmitAnswer(jobs=[], refused=[])

    def submit_folder(self, path: str) -> None:
        """Submit the frames of a folder; each call makes new jobs. Durable when it returns.

        Raises
        ------
        PathError
            if it is no folder, or lies outside of the read roots.
        """
        if not self.intake.source(path).is_dir():
            raise PathError(path, "found no folder", "one that this host sees", "Check it.")
        self._folder_submitter.gather([path], _LISTING_PATIENCE)

    def set_recipe(self, recipe: Recipe) -> None:
        """Take another recipe for requests that bring none, and keep it over restarts.

        Raises
        ------
        PathError
            if its outputs would lie outside of the write roots, or its mask outside of the read roots.
        """
        self.intake.require_allowed(recipe)
        self._ledger.keep(_RECIPE, recipe.model_dump_json())
        self.recipe = recipe
        _log.info("the recipe is now %s", recipe.model_dump_json())
        self._changed()

    def pause(self, *, paused: bool) -> None:
        """Start no conversion any more, or go on; kept over restarts."""
        self._ledger.keep(_PAUSED, "1" if paused else "0")
        self._engine.post(PauseWanted(paused))
        _log.info("paused" if paused else "going on")

    def cancel(self, query: CancelQuery) -> CancelAnswer:
        """Give jobs that no worker has a report that says so, and convert them no more.

        Raises
        ------
        TimeoutError, LedgerBusyError
            if it takes too long (it is done nevertheless), or the ledger can't be written at present.
        """
        if query.all:
            self._folder_submitter.cancel()
        job_ids = None if query.job_ids is None else tuple(query.job_ids)
        return CancelAnswer(cancelled=self._engine.cancel(Selection(job_ids, query.run_uid), _CANCEL_PATIENCE))

    def retry_failed(self) -> int:
        """Try the frames again that have failed since the last `reset_statistics`; return how many they are."""
        count = self._ledger.retry_failed()
        self._engine.post(FailuresRetried(count))
        _log.info("%d failed frames are tried again", count)
        return count

    def reset_statistics(self) -> None:
        """Start the counters from zero; frames that have failed so far are left as they are."""
        self._ledger.dismiss_failed()
        self._engine.post(StatisticsReset())

    def acknowledge(self) -> None:
        """Somebody has seen the failures so far: they are no reason for an alarm any more."""
        self._set_aside = ""
        self._engine.post(FailuresAcknowledged())
        self._changed()

    def reports(self, query: ReportsQuery) -> ReportsAnswer:
        """Return the reports asked for; raise `UnknownIdError`."""
        reports, pending = self.history.reports(query)
        awaited = self._engine.awaited(query.job_ids)[:_AWAITED_SHOWN] if query.job_ids and pending else []
        return ReportsAnswer(reports=reports, pending=pending, awaited=awaited)

    def close(self) -> None:
        """Let running conversions finish and be reported, end the threads and the workers.

        Jobs that are not finished stay on the ledger.
        """
        self._folder_submitter.close(_CLOSE_PATIENCE)
        self._engine.close(_CLOSE_PATIENCE)
        self._housekeeper.close(_CLOSE_PATIENCE)
        self._database.close()

    def _changed(self) -> None:
        self._listener(self)

    def _measured(self, space: FreeSpace) -> None:
        before = self.intake.disk_trouble
        places_before = self._ledger_trouble, self._mounts.last_trouble
        self._ledger_trouble = self._database.trouble
        self._mounts.look()
        changed = space != self.intake.space or (self._ledger_trouble, self._mounts.last_trouble) != places_before
        self.intake.space = space
        if self.intake.disk_trouble and not before:
            _log.error("%s Nothing is accepted until there is room.", self.intake.disk_trouble)
        if changed:
            self._changed()

    def _make_lost_outputs_pending(self) -> None:
        """After a power loss, convert again what may not have been on disk yet."""
        set_aside = self._database.set_aside
        self._set_aside = (
            f"the ledger was damaged and was put aside as {set_aside}; submit again what was not converted"
            if set_aside
            else ""
        )
        now, before = boot(), self._ledger.kept(_BOOT)
        if before is not None and before != now:
            lost = self.history.reopen_unsynced()
            _log.warning("this machine was started anew; %d outputs that may be lost are made again", lost)
        self._ledger.keep(_BOOT, now)


def _kept_recipe(ledger: Ledger) -> Recipe | None:
    """Return the recipe that SetRecipe kept, None if there is none that this version understands."""
    kept = ledger.kept(_RECIPE)
    try:
        return Recipe.model_validate_json(kept) if kept else None
    except ValidationError as error:
        _log.error("the recipe kept by SetRecipe can't be read (%s); the configured one holds. Call SetRecipe.", error)
        return None
