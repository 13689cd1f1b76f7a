"""The reports of the frames of watched files that became one job for each frame.

The store knows only the file, which is done when its own report comes: after a restart these reports are not repeated.
"""

from collections import deque
from collections.abc import Callable

from tango_server.messages import FrameReport, frame_job_id

_BATCH = 200
_ROUNDS = 10

Reports = dict[str, FrameReport | None]
"""By job id; None for a job without a report yet. Unknown jobs are left out."""


class FrameReports:
    """Passes the reports of frames to `on_report`, file by file and in their order; `query` returns those of jobs."""

    def __init__(self, query: Callable[[list[str]], Reports], on_report: Callable[[FrameReport], None]) -> None:
        self._query = query
        self._on_report = on_report
        self._files: deque[tuple[str, int, int]] = deque()
        """Job id of the file, its first frame without a report, and the number of frames."""

    @property
    def idle(self) -> bool:
        """Whether all reports have come."""
        return not self._files

    def add(self, report: FrameReport) -> None:
        """Wait for the reports of the frames of a file, if this report says that it became such jobs."""
        if report.frames and report.job_id:
            self._files.append((report.job_id, 0, report.frames))

    def poll(self, stopped: Callable[[], bool]) -> None:
        """Query reports; continue as long as all are there."""
        for _ in range(_ROUNDS):
            if not self._files or stopped():
                return
            job_id, start, count = self._files[0]
            asked = [frame_job_id(job_id, index) for index in range(start, min(start + _BATCH, count))]
            done = self._passed_on(asked)
            self._files[0] = job_id, start + done, count
            if start + done == count:
                self._files.popleft()
            if done < len(asked):
                return

    def _passed_on(self, asked: list[str]) -> int:
        """Pass on reports up to the first one that is still to come; return the number of these jobs."""
        reports = self._query(asked)
        for done, job_id in enumerate(asked):
            if job_id not in reports:  # no longer known
                continue
            report = reports[job_id]
            if report is None:
                return done
            self._on_report(report)
        return len(asked)
