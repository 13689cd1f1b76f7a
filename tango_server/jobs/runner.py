"""A running conversion service: the interface for the Tango device, the folder watch and other programs."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from pydantic import ValidationError

from tango_server.conversion.errors import PathError
from tango_server.jobs.capacity import FreeSpace
from tango_server.jobs.engine import Engine
from tango_server.jobs.executors.base import Executor
from tango_server.jobs.expansion import Expander
from tango_server.jobs.folder_submission import FolderSubmitter
from tango_server.jobs.housekeeping import Housekeeper, boot
from tango_server.jobs.intake import Intake, requests_for
from tango_server.jobs.ledger.database import Database
from tango_server.jobs.ledger.finish_order import FinishOrder
from tango_server.jobs.ledger.history import History
from tango_server.jobs.ledger.ledger import Ledger
from tango_server.jobs.mounts import Mounts
from tango_server.jobs.state_machine.events import (
    Accepted,
    Event,
    FailuresAcknowledged,
    FailuresRetried,
    PauseWanted,
    Selection,
    StatisticsReset,
)
from tango_server.jobs.state_machine.machine import JobStateMachine
from tango_server.jobs.state_machine.rules import ServiceRules
from tango_server.jobs.state_machine.snapshot import Snapshot
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

_CLOSE_TIMEOUT = 5.0  # s
_CANCEL_TIMEOUT = 2.5
_ANSWERED_AT_ONCE = 100
"""Number of files submitted while the caller waits; more are submitted by a thread."""
_LISTING_TIMEOUT = 0.05
_AWAITED_SHOWN = 20
_RECIPE, _PAUSED, _BOOT = "recipe", "paused", "boot"


class JobRunner:
    """One per server start or Init; can't be reopened after `close`.

    Attributes
    ----------
    intake
        accepts requests, and resolves paths on this host
    history
        the finished jobs
    recipe
        the default recipe, for requests without one

    """

    def __init__(
        self, settings: Settings, database: Database, executor: Executor, changed: Callable[["JobRunner"], None]
    ) -> None:
        """Resume the pending jobs of the ledger. `changed` is called from a thread when the numbers have changed."""
        self._database = database
        self._executor = executor
        self.history = History(database)
        self._finish_order = FinishOrder(database)
        self._ledger = Ledger(database)
        self._make_lost_outputs_pending()
        self.recipe = _kept_recipe(self._ledger) or settings.recipe
        service = JobStateMachine(ServiceRules.of(settings), paused=self._ledger.kept(_PAUSED) == "1")
        self._listener = changed
        self._ledger_problem = ""
        roots = settings.roots()
        self._mounts = Mounts(dict.fromkeys((*roots.read, *roots.write)))
        self.intake = Intake(
            settings,
            self._ledger,
            recipe=lambda: self.recipe,
            waiting=lambda: self._engine.snapshot.queue_length,
            post=self._post,
        )
        self._engine = Engine(
            service,
            self._ledger,
            executor,
            roots=settings.roots,
            mounts=self._mounts,
            lambda_modules=settings.lambda_modules,
            expander=Expander(self.intake, self._post),
            changed=self._changed,
        )
        pending = self._ledger.pending()
        if pending:
            _log.info("Resuming %d unfinished jobs", pending)
            self._engine.post(Accepted(pending))
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
        """The current numbers; a job counts from its acceptance, a folder as one job until it is scanned."""
        unscanned = self._folder_submitter.waiting  # first, so that no files are missed that become jobs meanwhile
        intake, now = self.intake, self._engine.snapshot
        full = now.queue_length >= intake.backlog_limit
        notices = (
            intake.disk_problem,
            f"The queue is full ({intake.backlog_limit} frames)" if full else "",
            self._set_aside,
        )
        return replace(
            now,
            queue_length=now.queue_length + unscanned,
            scanned=self._folder_submitter.found,
            free_space=intake.space.free,
            alarms=tuple(filter(None, notices)),
            warning=intake.disk_warning,
        )

    @property
    def fault(self) -> str:
        """Why nothing can be converted; empty if all is well."""
        return self._engine.fault or self._ledger_problem

    @property
    def problem(self) -> str:
        """Why frames have to wait although the service itself is fine; empty if they need not."""
        return self._executor.problem or self._mounts.last_problem

    def submit_files(self, paths: Sequence[str]) -> SubmitAnswer:
        """Submit files by name, with the default recipe; each call creates new jobs.

        A long list is only stored, and submitted in the background: then the answer is empty, a refused file is
        reported as failed, and a name that occurs twice becomes one job.
        """
        if len(paths) <= _ANSWERED_AT_ONCE:
            return self.intake.submit(requests_for(paths))
        self._folder_submitter.submit(paths)
        return SubmitAnswer(jobs=[], refused=[])

    def submit_folder(self, path: str) -> None:
        """Submit the frames of a folder; each call creates new jobs. Durable when it returns.

        Raises
        ------
        PathError
            if it is not a folder, or is outside the read roots.
        """
        if not self.intake.source(path).is_dir():
            raise PathError(path, "the conversion host has no such folder", "Check the path.")
        self._folder_submitter.submit([path], _LISTING_TIMEOUT)

    def set_recipe(self, recipe: Recipe) -> None:
        """Set the default recipe; survives a restart.

        Raises
        ------
        PathError
            if its outputs would be outside the write roots, or its mask is outside the read roots.
        """
        self.intake.require_allowed(recipe)
        self._ledger.keep(_RECIPE, recipe.model_dump_json())
        self.recipe = recipe
        _log.info("Default recipe set to %s", recipe.model_dump_json())
        self._changed()

    def pause(self, *, paused: bool) -> None:
        """Pause or resume conversions; survives a restart."""
        self._ledger.keep(_PAUSED, "1" if paused else "0")
        self._engine.post(PauseWanted(paused))
        _log.info("Paused" if paused else "Resumed")

    def cancel(self, query: CancelQuery) -> CancelAnswer:
        """Cancel jobs that are not being converted.

        Raises
        ------
        TimeoutError, LedgerBusyError
            if it takes too long (the jobs are cancelled nevertheless), or the ledger can't be written.
        """
        if query.all:
            self._folder_submitter.cancel()
        job_ids = None if query.job_ids is None else tuple(query.job_ids)
        return CancelAnswer(cancelled=self._engine.cancel(Selection(job_ids, query.run_uid), _CANCEL_TIMEOUT))

    def retry_failed(self) -> int:
        """Retry the frames that have failed since the last `reset_statistics`; return their number."""
        retried = self._ledger.retry_failed()
        self._engine.post(FailuresRetried(retried.jobs))
        _log.info("Retrying %d failed frames", retried.frames)
        return retried.frames

    def reset_statistics(self) -> None:
        """Reset the counters to zero; earlier failures are not retried any more."""
        self._ledger.dismiss_failed()
        self._engine.post(StatisticsReset())

    def acknowledge(self) -> None:
        """Clear the alarm about failures so far."""
        self._set_aside = ""
        self._engine.post(FailuresAcknowledged())
        self._changed()

    def reports(self, query: ReportsQuery) -> ReportsAnswer:
        """Return the requested reports; raise `UnknownIdError`."""
        if query.latest and query.after is not None:
            return self._finish_order.reports_after(query)
        reports, pending = self.history.reports(query)
        awaited = self._engine.awaited(query.job_ids)[:_AWAITED_SHOWN] if query.job_ids and pending else []
        return ReportsAnswer(reports=reports, pending=pending, awaited=awaited)

    def close(self) -> None:
        """Let running conversions finish and be reported, then stop the threads and the workers.

        Unfinished jobs stay on the ledger.
        """
        self._folder_submitter.close(_CLOSE_TIMEOUT)
        self._engine.close(_CLOSE_TIMEOUT)
        self._housekeeper.close(_CLOSE_TIMEOUT)
        self._database.close()

    def _post(self, event: Event) -> None:
        self._engine.post(event)

    def _changed(self) -> None:
        self._listener(self)

    def _measured(self, space: FreeSpace) -> None:
        before = self.intake.disk_problem
        places_before = self._ledger_problem, self._mounts.last_problem
        self._ledger_problem = self._database.problem
        self._mounts.check()
        changed = space != self.intake.space or (self._ledger_problem, self._mounts.last_problem) != places_before
        self.intake.space = space
        if self.intake.disk_problem and not before:
            _log.error("%s No frames are accepted until there is room.", self.intake.disk_problem)
        if changed:
            self._changed()

    def _make_lost_outputs_pending(self) -> None:
        """After a reboot, convert again what may not have been flushed to disk."""
        set_aside = self._database.set_aside
        self._set_aside = (
            f"The ledger was damaged and was moved to {set_aside}; submit unconverted frames again" if set_aside else ""
        )
        now, before = boot(), self._ledger.kept(_BOOT)
        if before is not None and before != now:
            lost = self.history.reopen_unsynced()
            self._ledger.reopen_lost_groups()
            _log.warning("This machine was rebooted; converting %d outputs again that may have been lost", lost)
        self._ledger.keep(_BOOT, now)


def _kept_recipe(ledger: Ledger) -> Recipe | None:
    """Return the recipe stored by SetRecipe, None if there is none that this version can parse."""
    kept = ledger.kept(_RECIPE)
    try:
        return Recipe.model_validate_json(kept) if kept else None
    except ValidationError as error:
        _log.error(
            "Cannot read the recipe stored by SetRecipe: %s. Using the configured one; call SetRecipe to change it.",
            error,
        )
        return None
