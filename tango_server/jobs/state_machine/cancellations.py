"""Cancellations that the ledger has not answered yet, and what happens to their jobs meanwhile."""

from tango_server.jobs.state_machine.events import Assembled, AttemptFailed, Cancel, CancelWanted, Expanded, Observed
from tango_server.jobs.state_machine.group_scheduler import GroupScheduler
from tango_server.jobs.state_machine.results import Results
from tango_server.jobs.state_machine.work import Work

Postponable = Observed | AttemptFailed | Expanded | Assembled


class Cancellations:
    """While one is under way, the events of jobs that may be cancelled already must wait for the answer."""

    def __init__(self, work: Work, results: Results, groups: GroupScheduler) -> None:
        self._work = work
        self._results = results
        self._groups = groups
        self._under_way = 0
        self._postponed: list[Postponable] = []

    def __bool__(self) -> bool:
        return self._under_way > 0

    def begin(self, event: CancelWanted) -> Cancel:
        """Return the instruction, which spares jobs that are running, converted or reported."""
        self._under_way += 1
        converted = (job_id for job_id, progress in self._work.jobs.items() if progress.report is not None)
        running = frozenset(self._work.queue.running)
        spared = running.union(converted, self._results.unwritten, self._groups.converting())
        return Cancel(event.ticket, event.selection, spared)

    def postpones(self, event: Postponable) -> bool:
        """Keep an event until the ledger has answered, if its job may be cancelled; return whether it is kept."""
        progress = self._work.jobs.get(event.job_id) if self else None
        if progress is None or progress.report is not None or event.job_id in self._work.queue.running:
            return False
        self._postponed.append(event)
        return True

    def answered(self) -> list[Postponable]:
        """Note an answer of the ledger; return the events to handle now."""
        self._under_way -= 1
        if self:
            return []
        postponed, self._postponed = self._postponed, []
        return postponed
