"""What a client makes of a server's answers, without a server."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import tango
from pydantic import BaseModel, ConfigDict, ValidationError

from tango_server.client.client import Client, LinkDownError, RequestRejectedError
from tango_server.limits import MANY_REPORTS, MOST_REPORTS
from tango_server.messages import FrameReport, Name, ReportsAnswer, ReportsQuery, SubmitQuery
from tango_server.text import explain

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


class OldSubmitQuery(BaseModel):
    """`SubmitQuery` without `run_counts`."""

    model_config = ConfigDict(extra="forbid")

    requests: list[dict[str, Any]] = []
    runs: list[Name] = []


def refuse_as_2db7c4c(error: ValidationError) -> str:
    """Return what that version says."""
    return "; ".join(
        f"{'.'.join(map(str, fault['loc']))}: found {fault['input']!r}; {fault['msg'][:1].lower()}{fault['msg'][1:]}"
        for fault in error.errors()
    )


class Server:
    """The device behind a proxy, which knows run_counts or not."""

    def __init__(self, model: type[BaseModel], explained: Callable[[ValidationError], str] = explain) -> None:
        self.model = model
        self.explained = explained
        self.up = True
        self.keys: list[list[str]] = []
        """The keys of each call."""

    def command_inout(self, name: str, argument: str) -> str:
        if not self.up:
            tango.Except.throw_exception("API_CorbaException", "no answer", name)
        self.keys.append(list(json.loads(argument)))
        try:
            self.model.model_validate_json(argument)
        except ValidationError as error:
            text = f"{name}: {self.explained(error)}. Correct it and call again."
            tango.Except.throw_exception("PETIF_BadArgument", text, name)
        return '{"jobs": [], "refused": []}'


def client_of(server: Server) -> Client:
    client = Client("tango://nowhere:1/petif/converter/1#dbase=no")
    client._connection._create_proxy = lambda: server  # type: ignore[method-assign, assignment, return-value]
    return client


COUNTS = {"run": {"primary": (3, 3)}}
OLD, NEW = ["requests", "runs"], ["requests", "runs", "run_counts"]
EXPLAINED = pytest.mark.parametrize("explained", [explain, refuse_as_2db7c4c])


def test_counts_are_sent_only_if_there_are_any() -> None:
    server = Server(SubmitQuery)
    client = client_of(server)
    for counts in (None, {}, COUNTS):
        client.submit([], ["run"], counts)
    assert server.keys == [OLD, OLD, NEW]


@EXPLAINED
def test_old_server_gets_no_counts_until_it_has_been_away(explained: Callable[[ValidationError], str]) -> None:
    server = Server(OldSubmitQuery, explained)
    client = client_of(server)
    for _ in range(2):
        client.submit([], ["run"], COUNTS)
    assert server.keys == [NEW, OLD, OLD]
    server.up = False
    with pytest.raises(LinkDownError):
        client.submit([], ["run"], COUNTS)
    server.up, server.model, server.keys = True, SubmitQuery, []
    client.submit([], ["run"], COUNTS)
    assert server.keys == [NEW]


@EXPLAINED
def test_wrong_call_is_rejected_with_its_own_reason(explained: Callable[[ValidationError], str]) -> None:
    wrong: dict[str, Any] = {"run": {"primary": (3, -1)}}
    quoting = ["x" * 600 + "run_counts: unknown name"]
    for model, counts, runs, reason in (
        (SubmitQuery, wrong, [], "run_counts.run.primary.1"),
        (SubmitQuery, COUNTS, quoting, "runs.0"),
        (OldSubmitQuery, COUNTS, [""], "runs.0"),
    ):
        server = Server(model, explained)
        client = client_of(server)
        with pytest.raises(RequestRejectedError, match=reason):
            client.submit([], runs, counts)
        server.model, server.keys = SubmitQuery, []
        client.submit([], ["run"], COUNTS)
        assert server.keys == [NEW], "it was not the counts that were refused"
