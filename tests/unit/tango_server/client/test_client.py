"""What a client makes of a server's answers, without a server."""

from tango_server.client.client import Client, RequestRejectedError
from tango_server.limits import MANY_REPORTS, MOST_REPORTS
from tango_server.messages import FrameReport, ReportsAnswer, ReportsQuery

REPORTS = [FrameReport(source=f"/raw/{number}.tif", outcome="converted", finished=float(number)) for number in range(3)]


class Scripted(Client):
    """A client whose server has the reports of one run, and may be too old to give them in parts."""

    def __init__(self, *, old: bool) -> None:
        super().__init__("tango://nowhere:1/petif/converter/1#dbase=no")
        self.old = old
        self.queries: list[ReportsQuery] = []

    def reports(self, query: ReportsQuery) -> ReportsAnswer:
        self.queries.append(query)
        if self.old and query.after is not None:
            raise RequestRejectedError("GetReports: after: extra inputs are not permitted")
        return ReportsAnswer(reports=REPORTS, pending=0)


def test_reports_of_a_run_come_whole_or_in_parts() -> None:
    client = Scripted(old=False)
    assert client.reports_of_run("run") == client.reports_of_run("run", "job") == REPORTS
    assert client.queries == [
        ReportsQuery(run_uid="run", limit=MOST_REPORTS),
        ReportsQuery(run_uid="run", after="job", limit=MANY_REPORTS),
    ]


def test_old_server_that_rejects_parts_is_queried_for_all() -> None:
    client = Scripted(old=True)
    assert client.reports_of_run("run", "") == REPORTS
    assert client.queries[-1] == ReportsQuery(run_uid="run", limit=MOST_REPORTS)
