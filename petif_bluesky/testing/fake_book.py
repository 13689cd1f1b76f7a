"""The jobs of a fake server: validated like those of a real one, kept in memory, with made-up reports."""

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from petif_bluesky.testing.fake_groups import FakeGroup, FakeGroups
from tango_server.conversion.files.roots import ANYWHERE, Resolve, Roots, resolve_path
from tango_server.jobs.job import Job
from tango_server.jobs.validation import job_for
from tango_server.messages import (
    AcceptedJob,
    FrameReport,
    FrameRequest,
    GroupReport,
    Outcome,
    RefusedRequest,
    ReportsAnswer,
    RunCounts,
    RunStatistics,
    SubmitAnswer,
    SubmitQuery,
)
from tango_server.recipe import Recipe

Reporter = Callable[[FrameRequest], FrameReport]
"""Called with a request that has its key and recipe; returns the report of the frame."""
GroupReporter = Callable[[Sequence[FrameRequest]], GroupReport]
"""Called with the requests of a group's members, in their order; returns the report of the group."""


@dataclass(slots=True)
class _Booked:
    source: str
    run_uid: str | None
    request: FrameRequest | None
    """None if the request was refused; its report has the reason."""
    report: FrameReport | None = None


class FakeBook:
    """Submitted requests and their reports.

    Requests are accepted or refused by the code of the real server.

    Parameters
    ----------
    root: folder that may be read and written; None for any
    recipe: recipe of requests without one

    """

    def __init__(self, root: Path | None, recipe: Recipe) -> None:
        self.requests: dict[str, FrameRequest] = {}
        self.announced: list[str] = []
        self._recipe = recipe
        self._roots = ANYWHERE if root is None else Roots.of([root])
        self._resolve: Resolve = resolve_path if root is not None else (lambda path: path)
        self._booked: dict[str, _Booked] = {}
        self._groups = FakeGroups()
        self._counts: dict[str, dict[str, tuple[int, int]]] = {}
        self._finished: dict[str | None, list[FrameReport]] = {}
        """Reports by run, in order."""
        self._in_order: list[FrameReport] = []

    def knows(self, run_uid: str) -> bool:
        """Return whether a run was announced or has a submitted frame."""
        announced = run_uid in self.announced or run_uid in self._counts
        return announced or any(booked.run_uid == run_uid for booked in self._booked.values())

    def accept(
        self,
        requests: Sequence[Mapping[str, Any]],
        runs: Sequence[str],
        refused: Collection[str],
        run_counts: RunCounts | None = None,
        close_groups: Mapping[str, int] | None = None,
    ) -> SubmitAnswer:
        """Add requests, runs, their counts and the sizes of groups.

        Sources in `refused` are refused as well as those that a server refuses.

        Raises
        ------
        pydantic.ValidationError
            if the call as a whole is invalid; nothing is added.

        """
        call = {"requests": list(requests), "runs": list(runs), "run_counts": run_counts or {}}
        call["close_groups"] = dict(close_groups or {})
        query = SubmitQuery.model_validate_json(json.dumps(call))
        self.announced += query.runs
        for run_uid, streams in query.run_counts.items():
            known = self._counts.setdefault(run_uid, {})
            for stream, (seen, submitted) in streams.items():
                before = known.get(stream, (0, 0))
                known[stream] = (max(seen, before[0]), max(submitted, before[1]))
        answer = SubmitAnswer(jobs=[], refused=[])
        for raw in query.requests:
            self._take(raw, refused, answer)
        self._groups.close(query.close_groups)
        return answer

    def convert(self, report: Reporter, report_group: GroupReporter) -> None:
        """Make a report for every pending frame that belongs to no group, and for every group that is complete."""
        for booked in self._booked.values():
            if booked.report is None and booked.request is not None and booked.request.group is None:
                self._finish(booked, report(booked.request))
        for group in self._groups:
            if group.is_complete:
                self._combine(group, report_group)

    def reports(self, run_uid: str, after: str = "") -> list[FrameReport]:
        """Return the reports of a run in order; if a job is given, only those after it."""
        reports = self._finished.get(run_uid, [])
        return reports[[report.job_id for report in reports].index(after) + 1 if after else 0 :]

    def reports_after(self, position: str, limit: int) -> ReportsAnswer:
        """Return the reports of all runs after a position, which is the number of reports before it."""
        begin = len(self._in_order) if position == "now" else int(position or 0)
        reports = self._in_order[begin : begin + limit]
        pending = sum(booked.report is None for booked in self._booked.values())
        return ReportsAnswer(reports=reports, pending=pending, position=str(begin + len(reports)))

    def statistics(self, run_uid: str) -> RunStatistics:
        """Return the statistics of a run; all zeros for an unknown one."""
        reports = self.reports(run_uid)
        converted = [report for report in reports if report.outcome == "converted"]
        latencies = sorted(report.latency for report in converted if report.latency is not None)
        total = sum(report.conversion_time for report in converted)
        frames = self._of(run_uid)
        outcomes = [booked.report.outcome for booked in frames if booked.report is not None]
        groups = [report.outcome == "failed" for report in reports if isinstance(report, GroupReport)]
        unwritten = sum(group.is_due and bool(group.members) for group in self._groups.of(run_uid))
        return RunStatistics(
            run_uid=run_uid,
            submitted=len(frames),
            converted=outcomes.count("converted"),
            skipped=outcomes.count("skipped"),
            placeholders=outcomes.count("placeholder"),
            failed=outcomes.count("failed"),
            pending=max(len(frames) - len(outcomes), unwritten),
            grouped=outcomes.count("grouped"),
            superseded=outcomes.count("superseded"),
            groups=groups.count(False),
            groups_failed=groups.count(True),
            conversion_time_total=total,
            conversion_time_mean=total / len(converted) if converted else 0.0,
            latency_median=_nearest_rank(latencies, 50),
            latency_p95=_nearest_rank(latencies, 95),
            run_counts=dict(self._counts.get(run_uid, {})),
        )

    def _of(self, run_uid: str) -> list[_Booked]:
        return [booked for booked in self._booked.values() if booked.run_uid == run_uid]

    def _combine(self, group: FakeGroup, report_group: GroupReporter) -> None:
        members = [self._booked[key] for key in group.members]
        requests = [booked.request for booked in members if booked.request is not None]
        report = report_group(requests).model_copy(update={"job_id": group.job_id, "group": group.id})
        group.is_due = False
        for request, booked, member in zip(requests, members, report.members, strict=True):
            self._finish(booked, _without_file(request, member.outcome, member.reason))
        self._publish(group.run_uid, report)

    def _finish(self, booked: _Booked, report: FrameReport) -> None:
        booked.report = report
        self._publish(booked.run_uid, report)

    def _publish(self, run_uid: str | None, report: FrameReport) -> None:
        """Add a report, in place of an earlier one of the same job."""
        finished = self._finished.setdefault(run_uid, [])
        finished[:] = [each for each in finished if each.job_id is None or each.job_id != report.job_id]
        finished.append(report)
        self._in_order.append(report)

    def _take(self, raw: dict[str, Any], refused: Collection[str], answer: SubmitAnswer) -> None:
        now = time.time()
        job = job_for(raw, self._recipe, self._roots, now, resolve=self._resolve)
        refusal, source, run_uid = job.refusal, job.location.path, job.request.run_uid
        if refusal is None and raw["source"] in refused:
            refusal = job.failed(f"{source} is outside", now)
        if job.recipe.combine is not None and job.request.group is None and job.request.placeholder is None:
            why = job.request.metadata.get("left_out", {}).get("group", "cannot combine: it belongs to no group")
            refusal = job.failed(f"{source}: {why}", now)
        key = job.request.key or job.job_id
        known = self._booked.get(key)
        if refusal is not None:
            answer.refused.append(RefusedRequest(source=source, reason=refusal.reason))
            if known is None and run_uid:
                booked = self._booked[key] = _Booked(source, run_uid, None)
                self._finish(booked, refusal)
            return
        if known is None or known.request is None:
            known = self._accept(key, raw, job)
        if known.source == source:
            answer.jobs.append(AcceptedJob(job_id=key, source=source))
        else:
            reason = f"{source}: cannot accept: its key already belongs to {known.source}. Use a different key."
            answer.refused.append(RefusedRequest(source=source, reason=reason))

    def _accept(self, key: str, raw: dict[str, Any], job: Job) -> _Booked:
        request = self.requests[key] = FrameRequest.model_validate(raw)
        whole = request.model_copy(update={"source": job.location.path, "key": key, "recipe": job.recipe})
        refused = self._booked.pop(key, None)  # submitted again, corrected: moves to the end
        if refused is not None and refused.report is not None:
            self._finished[refused.run_uid].remove(refused.report)
        booked = self._booked[key] = _Booked(job.location.path, request.run_uid, whole)
        earlier = self._booked.get(request.supersedes or "")
        if earlier is not None and earlier.request is not None:
            self._finish(earlier, _without_file(earlier.request, "superseded", f"its point was taken again: {key}"))
        self._groups.add(key, whole)
        return booked


def _without_file(request: FrameRequest, outcome: Outcome, reason: str) -> FrameReport:
    return FrameReport(
        job_id=request.key, source=request.source, outcome=outcome, reason=reason, finished=time.time(),
        **request.origin,
    )  # fmt: skip


def _nearest_rank(ordered: Sequence[float], percent: int) -> float:
    return ordered[-(-percent * len(ordered) // 100) - 1] if ordered else 0.0
