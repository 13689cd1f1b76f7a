"""The reports of a run: asked for once, kept once, small."""

import tracemalloc
from collections.abc import Sequence

import pytest

from petif_bluesky.signals.run_reports import RunReports
from petif_bluesky.testing.reports import converted_beside
from tango_server.client.client import LinkDownError, UnknownRunError
from tango_server.limits import MANY_REPORTS
from tango_server.messages import FrameReport, FrameRequest


def report(number: int) -> FrameReport:
    source = f"/data/2026/raw/sample/scan-{number:05d}.tif"
    return converted_beside(FrameRequest(source=source, key=f"job-{number}", run_uid="run", seq_num=number + 1))


class Server:
    """Has reports, and notes which it was asked for."""

    def __init__(self) -> None:
        self.reports: list[FrameReport] = []
        self.asked: list[str] = []
        self.gave = 0

    def __call__(self, run_uid: str, after: str) -> Sequence[FrameReport]:
        assert run_uid == "run"
        self.asked.append(after)
        names = [str(report.job_id) for report in self.reports]
        if after and after not in names:
            raise UnknownRunError(f"unknown job id {after!r}")
        start = names.index(after) + 1 if after else 0
        given = self.reports[start : start + MANY_REPORTS]
        self.gave += len(given)
        return given


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def known() -> RunReports:
    return RunReports("run")


def test_only_new_reports_are_fetched(server: Server, known: RunReports) -> None:
    for number in range(5):
        server.reports += [report(2 * number), report(2 * number + 1)]
        known.gather(server, 2 * number + 2)
        assert list(known) == server.reports
    assert server.asked == ["", "job-1", "job-3", "job-5", "job-7"]
    assert (known[3], known[-1], known[2:4]) == (server.reports[3], server.reports[9], server.reports[2:4])


def test_many_reports_are_fetched_in_pages(server: Server, known: RunReports) -> None:
    server.reports = [report(number) for number in range(2 * MANY_REPORTS + 1)]
    known.gather(server, len(server.reports))
    assert list(known) == server.reports
    assert len(server.asked) == 3


def test_out_of_order_report_is_fetched(server: Server, known: RunReports) -> None:
    server.reports = [report(1), report(2)]
    known.gather(server, 2)
    server.reports.insert(0, report(0))  # an earlier one, that was written later
    known.gather(server, 3)
    assert [each.seq_num for each in known] == [2, 3, 1]


def test_repeated_report_is_kept_once(server: Server, known: RunReports) -> None:
    server.reports = [report(1)]
    known.gather(server, 1)
    server.reports = [report(1).model_copy(update={"outcome": "failed"})]  # retried
    known.gather(server, 2)
    assert [each.outcome for each in known] == ["converted"]


def test_reports_are_fetched_again_if_the_last_is_unknown(server: Server, known: RunReports) -> None:
    server.reports = [report(1)]
    known.gather(server, 1)
    server.reports = [report(2), report(3)]
    known.gather(server, 3)
    assert [each.seq_num for each in known] == [2, 3, 4]


def test_reports_before_an_outage_are_kept(server: Server, known: RunReports) -> None:
    server.reports = [report(number) for number in range(MANY_REPORTS + 1)]
    calls = iter([server, server])

    def ask(run_uid: str, after: str) -> Sequence[FrameReport]:
        if after:
            raise LinkDownError("gone")
        return next(calls)(run_uid, after)

    with pytest.raises(LinkDownError):
        known.gather(ask, 0)
    assert len(known) == MANY_REPORTS
    known.gather(server, len(server.reports))
    assert list(known) == server.reports


def test_report_takes_a_tenth_of_a_kilobyte(server: Server, known: RunReports) -> None:
    server.reports = [report(number) for number in range(MANY_REPORTS - 1)]
    known.gather(lambda uid, after: server(uid, after)[:1], 0)  # what is there once is not of interest
    tracemalloc.start()
    try:
        known.gather(server, 0)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken / len(server.reports) < 100
    assert list(known) == server.reports
