"""The wire contract: the keys that clients type, and what is refused."""

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from tango_server.messages import (
    AcceptedJob,
    FrameReport,
    FrameRequest,
    GroupMember,
    GroupReport,
    MapPoint,
    PixelCounts,
    RefusedRequest,
    ReportsAnswer,
    ReportsQuery,
    RunStatistics,
    SubmitAnswer,
    SubmitQuery,
)
from tango_server.recipe import Recipe

REQUEST = FrameRequest(
    source="/data/raw/M\u00fcller \u03a9.tif", recipe=Recipe.preset("xdi"), key="run-1/det/3", run_uid="run-1",
    stream="primary", seq_num=3, metadata={"exposure": 0.5, "beam": [1024.5, 1020.25], "sample": {"name": None}},
)  # fmt: skip
REPORT = FrameReport(
    job_id="0f3e", source="/raw/a.tif", output="/processed/a.tif", outcome="converted", reason="\u00b5",
    shape=(2048, 1024), pixel_type="int32", pixels=PixelCounts(nan=1, negative=2, minimum=-0.5, maximum=65535.0),
    sidecar="carried", conversion_time=0.05, latency=0.0625, accepted=1.7e9, finished=1700000000.123456,
    recipe_hash="0123456789abcdef", run_uid="run-1", stream="primary", seq_num=3, bytes_in=16_777_354, bytes_out=20,
)  # fmt: skip
STATISTICS = RunStatistics(
    run_uid="run-1", submitted=10, converted=4, skipped=3, placeholders=1, failed=1, pending=1,
    conversion_time_total=0.4, conversion_time_mean=0.1, latency_median=0.2, latency_p95=0.9, bytes_in=5, bytes_out=6,
)  # fmt: skip
JOB = AcceptedJob(job_id="0f3e", source="/raw/a.tif")
REFUSAL = RefusedRequest(source="a.tif", reason="a relative path")
HERE = MapPoint(point=5, shape=(2, 3), motors=("y", "x"), positions=(0.5, 0.02), name="pattern")
MESSAGES = [
    REQUEST, REPORT, STATISTICS, JOB, REFUSAL,
    FrameRequest(source="/raw/a.tif"),
    FrameRequest(source="/raw/a.tif", group="run-1 3", member=2, members=10),
    FrameRequest(source="/raw/a.tif", map=HERE, placeholder="no frame came"),
    FrameReport(source="/raw/a.tif", outcome="failed", finished=1.7e9, map=HERE),
    FrameReport(source="/raw/a.tif", outcome="failed", finished=1.7e9),
    RunStatistics(run_uid="run-1"),
    RunStatistics(run_uid="run-1", grouped=9, groups=1, groups_failed=1, superseded=1),
    GroupReport(
        source="/raw/a.tif", outcome="converted", finished=1.7e9, group="run-1 3",
        members=(
            GroupMember(source="/raw/a.tif", outcome="grouped"),
            GroupMember(source="/raw/b.h5::/entry/data", frame=2, outcome="failed", reason="the file is missing"),
        ),
    ),
    SubmitQuery(close_groups={"run-1 3": 10}),
    SubmitQuery(requests=[{"source": "/raw/a.tif"}], runs=["run-1"], run_counts={"run-1": {"primary": (3, 3)}}),
    SubmitAnswer(jobs=[JOB], refused=[REFUSAL]),
    ReportsQuery(job_ids=["0f3e"], outcome="failed", limit=5),
    ReportsAnswer(reports=[REPORT], pending=2),
]  # fmt: skip


def name_of(message: object) -> str:
    return type(message).__name__


@pytest.mark.parametrize("message", MESSAGES, ids=name_of)
def test_a_message_survives_json_and_stays_as_it_is(message: BaseModel) -> None:
    model = type(message)
    assert model.model_validate_json(message.model_dump_json()) == message
    field = next(iter(model.model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(message, field, getattr(message, field))


@pytest.mark.parametrize("message", [REQUEST, MESSAGES[-4], MESSAGES[-2]], ids=name_of)
def test_unknown_keys_of_what_a_server_receives_are_errors(message: BaseModel) -> None:
    with pytest.raises(ValidationError) as caught:
        type(message).model_validate({**message.model_dump(), "pixels_": 1})
    assert [(fault["loc"], fault["type"]) for fault in caught.value.errors()] == [(("pixels_",), "extra_forbidden")]


@pytest.mark.parametrize("message", [REPORT, STATISTICS, MESSAGES[-3], MESSAGES[-1]], ids=name_of)
def test_unknown_keys_of_answers_are_passed_over(message: BaseModel) -> None:
    """A server may be of a later version than its clients."""
    text = json.dumps({**message.model_dump(mode="json"), "stack": "scan-1"})
    assert type(message).model_validate_json(text) == message


@pytest.mark.parametrize(
    ("message", "keys"),
    [
        (REQUEST, "source recipe key run_uid stream seq_num metadata"),
        (
            REPORT,
            "job_id source output outcome reason shape pixel_type pixels sidecar conversion_time latency accepted",
        ),
        (REPORT, "finished recipe_hash run_uid stream seq_num"),
        (STATISTICS, "run_uid submitted converted skipped placeholders failed pending bytes_in bytes_out"),
        (STATISTICS, "conversion_time_total conversion_time_mean latency_median latency_p95"),
        (PixelCounts(), "nan saturated_low saturated_high negative"),
        (SubmitAnswer(jobs=[], refused=[]), "jobs refused"),
        (ReportsAnswer(reports=[], pending=0), "reports pending"),
        (JOB, "job_id source"),
        (REFUSAL, "source reason"),
    ],
    ids=name_of,
)
def test_the_keys_of_the_contract_are_there(message: BaseModel, keys: str) -> None:
    assert set(keys.split()) <= set(message.model_dump())


def test_fields_of_groups_are_left_out_while_unused() -> None:
    """An old server refuses keys that it does not know."""
    messages = (REQUEST, REPORT, STATISTICS, SubmitQuery())
    keys = {key for message in messages for key in message.model_dump()}
    assert not keys & {"group", "member", "members", "close_groups", "grouped", "groups", "groups_failed", "superseded"}


def test_a_request_is_no_more_than_a_source_and_shares_nothing() -> None:
    request = FrameRequest.model_validate_json('{"source": "/raw/a.tif"}')
    assert request == FrameRequest(
        source="/raw/a.tif", recipe=None, key=None, run_uid=None, stream=None, seq_num=None, metadata={}
    )
    request.metadata["exposure"] = 1
    assert FrameRequest(source="b").metadata == {}


@pytest.mark.parametrize(
    ("model", "fields", "place"),
    [
        (FrameRequest, {}, "source"),
        (FrameRequest, {"source": ""}, "source"),
        (FrameRequest, {"source": "a", "key": ""}, "key"),
        (FrameRequest, {"source": "a", "run_uid": ""}, "run_uid"),
        (FrameRequest, {"source": "a", "seq_num": -1}, "seq_num"),
        (FrameRequest, {"source": "a", "seq_num": 2**63}, "seq_num"),
        (FrameRequest, {"source": "a", "metadata": None}, "metadata"),
        (FrameRequest, {"source": "a", "recipe": {"rotation": 45}}, "recipe"),
        (FrameReport, {"source": "a", "finished": 1.0, "outcome": "done"}, "outcome"),
        (FrameReport, {"source": "a", "outcome": "failed"}, "finished"),
        (FrameReport, {"source": "a", "finished": 1.0, "outcome": "failed", "sidecar": "lost"}, "sidecar"),
        (FrameRequest, {"source": "/" * 4097}, "source"),
        (FrameRequest, {"source": "a", "key": "k" * 4609}, "key"),
        (FrameRequest, {"source": "a", "run_uid": "r" * 513}, "run_uid"),
        (FrameRequest, {"source": "a", "stream": "s" * 513}, "stream"),
        (FrameRequest, {"source": "a", "group": "g" * 513}, "group"),
        (FrameRequest, {"source": "a", "member": 10_000}, "member"),
        (FrameRequest, {"source": "a", "members": 0}, "members"),
        (FrameRequest, {"source": "a", "members": 100_000}, "members"),
        (SubmitQuery, {"close_groups": {"g": 10_001}}, "close_groups.g"),
        (SubmitQuery, {"close_groups": {f"g{number}": 2 for number in range(10_001)}}, "close_groups"),
        (SubmitQuery, {"requests": [{}] * 10_001}, "requests"),
        (SubmitQuery, {"runs": ["r"] * 10_001}, "runs"),
        (SubmitQuery, {"runs": ["r" * 513]}, "runs.0"),
        (SubmitQuery, {"runs": [""]}, "runs.0"),
        (SubmitQuery, {"run_counts": {f"r{number}": {} for number in range(10_001)}}, "run_counts"),
        (SubmitQuery, {"run_counts": {"r": {f"s{number}": (1, 1) for number in range(101)}}}, "run_counts.r"),
        (
            SubmitQuery,
            {"run_counts": {f"r{n}": {f"s{m}": (1, 1) for m in range(100)} for n in range(101)}},
            "run_counts",
        ),
        (SubmitQuery, {"run_counts": {"": {}}}, "run_counts..[key]"),
        (SubmitQuery, {"run_counts": {"r": {"s": (1,)}}}, "run_counts.r.s.1"),
        (SubmitQuery, {"run_counts": {"r": {"s": (1, -1)}}}, "run_counts.r.s.1"),
        (SubmitQuery, {"run_counts": {"r": {"s": (2**63, 1)}}}, "run_counts.r.s.0"),
        (SubmitQuery, {"run_counts": {"r": {"s": (1, 1, 1)}}}, "run_counts.r.s"),
        (SubmitQuery, {"run_count": {}}, "run_count"),
        (ReportsQuery, {"job_ids": ["j"] * 10_001}, "job_ids"),
        (ReportsQuery, {"job_ids": ["j" * 513]}, "job_ids.0"),
        (ReportsQuery, {"run_uid": "r" * 513}, "run_uid"),
        (ReportsQuery, {"run_uid": "r", "limit": 0}, "limit"),
        (ReportsQuery, {"run_uid": "r", "limit": 100_001}, "limit"),
        (ReportsQuery, {"run_uid": "r", "outcome": "done"}, "outcome"),
        (SubmitQuery, {"requests": ["a.tif"]}, "requests.0"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value)[:40],
)
def test_a_value_outside_of_the_contract_is_refused_and_named(
    model: type[BaseModel], fields: dict[str, Any], place: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(fields)
    assert [".".join(map(str, fault["loc"])) for fault in caught.value.errors()] == [place]


def test_a_wrong_request_does_not_spoil_its_submission() -> None:
    text = '{"requests": [{"source": "/raw/a.tif"}, {"source": "/raw/b.tif", "recipe": {"rotation": 45}}, {}]}'
    assert len(SubmitQuery.model_validate_json(text).requests) == 3


def test_reports_are_queried_by_jobs_or_by_run() -> None:
    for query in ({}, {"job_ids": ["a"], "run_uid": "run"}, {"run_uid": "run", "latest": True}):
        with pytest.raises(ValidationError, match="one of job_ids, run_uid and"):
            ReportsQuery.model_validate(query)


def test_after_is_for_a_run_or_the_latest() -> None:
    for query in ({"run_uid": "run", "after": ""}, {"latest": True, "after": "now"}):
        assert ReportsQuery.model_validate(query).after == query["after"]
    with pytest.raises(ValidationError, match="after needs a run_uid or"):
        ReportsQuery(job_ids=["a"], after="a")


def nested(levels: int) -> dict[str, Any]:
    value: Any = 1
    for level in range(levels - 1):
        value = [value] if level % 2 else {"inner": value}
    return {"outer": value}


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (nested(33), "nested more than 32 levels"),
        (nested(150), "nested more than 32 levels"),
        ({"text": "x" * 65_536}, "65548 bytes of JSON (at most 65536)"),
    ],
    ids=["one level too deep", "far too deep", "too large"],
)
def test_metadata_beyond_its_caps_are_refused_with_the_cap(metadata: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        FrameRequest(source="a", metadata=metadata)
    assert words in str(caught.value)


def test_as_much_as_the_caps_allow_is_taken() -> None:
    FrameRequest(source="/" * 4096, key="k" * 4608, run_uid="r" * 512, stream="s" * 512, metadata=nested(32))
    assert FrameRequest(source="a", seq_num=2**63 - 1).seq_num == 2**63 - 1  # the largest that a ledger holds
    FrameRequest(source="a", metadata={"text": "x" * (65_536 - len('{"text": ""}'))})
    SubmitQuery(requests=[{}] * 10_000, runs=["r" * 512] * 10_000)
    SubmitQuery(run_counts={"r" * 512: {f"{n:0512}": (2**63 - 1, 0) for n in range(100)}})
    SubmitQuery(run_counts={f"r{number}": {"primary": (1, 1)} for number in range(10_000)})
    ReportsQuery(job_ids=["j"] * 10_000, limit=100_000)


@pytest.mark.parametrize(
    "change", [{"point": 6}, {"point": -1}, {"shape": []}, {"shape": [0, 6]}, {"shape": [10**5, 10**5]}, {"name": ""}]
)
def test_point_that_is_in_no_map_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MapPoint.model_validate({**HERE.model_dump(), **change})


def test_point_of_a_map_names_its_row_and_column() -> None:
    fields = FrameRequest(source="/raw/a.tif", map=HERE, metadata={"row": "of the user"}).fields
    assert (fields["point"], fields["row"], fields["column"]) == (5, 1, 2)
