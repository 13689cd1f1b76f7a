"""What `petif convert` prints: progress, what is worth saying of a report, and a summary."""

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tango_server.commands.output import complain, say
from tango_server.text import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.progress import Progress

    from tango_server.jobs.group_planning import PlannedGroup
    from tango_server.jobs.planning import Planned
    from tango_server.messages import FrameReport

_LISTED_PER_CAUSE = 5


class Counts:
    """What became of frames, or of groups of them, so far."""

    def __init__(self, planned: "Sequence[Planned | PlannedGroup]", *, combines: bool) -> None:
        from tango_server.jobs.group_planning import PlannedGroup

        self.outcomes: Counter[str] = Counter()
        self.noun = "group" if combines else "frame"
        self._frames = {each.name: len(each.members) for each in planned if isinstance(each, PlannedGroup)}
        self._items = len(self._frames) if combines else len(planned)
        self._all = len(planned)
        self._total = sum(self._frames.values()) + self._all - len(self._frames)
        self._done = self._used = 0
        self._folders = {str(item.output.parent) for item in planned if item.output is not None}
        self._started = time.monotonic()

    def add(self, report: "FrameReport") -> None:
        """Count a report."""
        from tango_server.messages import GroupReport

        self.outcomes[report.outcome] += 1
        self._done += self._frames.get(report.group or "", 1)
        if report.outcome == "converted":
            members = report.members if isinstance(report, GroupReport) else None
            self._used += 1 if members is None else sum(each.outcome == "grouped" for each in members)

    def progress(self, errors: "Console") -> "Progress":
        """Return a bar of the frames, and of the groups in words."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        progress = Progress(
            BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[words]}"), TimeRemainingColumn(),
            console=errors, transient=True,
        )  # fmt: skip
        progress.add_task("", total=self._total, words="")
        return progress

    def show(self, progress: "Progress") -> None:
        """Show the counts in a bar."""
        words = f"{self._rate:.1f} frames/s"
        if self._frames:
            words += f", {sum(self.outcomes.values())}/{self._all} groups"
        progress.update(progress.task_ids[0], completed=self._done, words=words)

    def summary(self) -> str:
        """Return all counts in words."""
        made = self.outcomes["converted"]
        done = f"{made} of {self._items} frames converted"
        if self.noun == "group":
            done = f"{made} of {self._items} groups combined, from {self._used} of {self._total} frames,"
        text = (
            f"{done} in {time.monotonic() - self._started:.1f} s ({self._rate:.1f} frames/s), "
            f"{self.outcomes['skipped']} skipped, {self.outcomes['failed']} failed"
        )
        left = self._all - sum(self.outcomes.values())
        text += f", {left} not started" if left else ""
        if made and self._folders:
            some = next(iter(self._folders)) if len(self._folders) == 1 else f"{len(self._folders)} folders"
            text += f"; output in {some}"
        return text

    @property
    def _rate(self) -> float:
        seconds = time.monotonic() - self._started
        return self._used / seconds if seconds else 0.0


class Complaints:
    """Prints why frames or groups failed: the first few with the same cause, then how many more there are."""

    def __init__(self, errors: "Console", noun: str) -> None:
        self._errors = errors
        self._noun = noun
        self._causes: Counter[str] = Counter()

    def log_report(self, report: "FrameReport") -> None:
        """Print why a frame or a group failed."""
        source = Path(report.source)
        cause = report.reason.removeprefix(report.frame_name)
        cause = cause.replace(report.source, "").replace(source.stem, "")
        self._causes[cause] += 1
        if self._causes[cause] <= _LISTED_PER_CAUSE:
            complain(self._errors, f"failed: {report.reason}")

    def sum_up(self) -> None:
        """Print how many more there were."""
        for cause, count in self._causes.items():
            if count > _LISTED_PER_CAUSE:
                more = counted(count - _LISTED_PER_CAUSE, f"more {self._noun}")
                complain(self._errors, f"failed: {more} for the same reason: {cause.strip(' :')} (--json lists each)")


def print_report(report: "FrameReport", errors: "Console", complaints: Complaints, *, as_json: bool) -> None:
    """Print a report as JSON, or what is worth saying about it."""
    if as_json:
        say(report.model_dump_json())
    elif report.outcome == "failed":
        complaints.log_report(report)
    elif report.outcome == "skipped" and report.output is None:
        complain(errors, f"{report.frame_name}: skipped: {report.reason}", style="")
    elif report.outcome == "converted" and report.reason:
        complain(errors, f"{report.frame_name}: {report.reason}", style="")
