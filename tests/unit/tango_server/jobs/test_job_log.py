"""What the log says of a job, and the fields of its lines."""

import logging

import pytest

from tango_server.jobs.job_log import RunSummaries, about, log_finished
from tango_server.messages import FrameReport
from tests.unit.ledger_entries import job, report

JOB = job("4f3c", "run")


def told(caplog: pytest.LogCaptureFixture, report: FrameReport) -> logging.LogRecord:
    with caplog.at_level(logging.DEBUG):
        log_finished(report)
    (record,) = caplog.records
    return record


def test_messages_about_a_job_carry_its_ids() -> None:
    assert about(JOB) == {"job_id": "4f3c", "run_uid": "run"}


def test_a_job_without_a_run_has_no_empty_field() -> None:
    assert about(job("4f3c")) == {"job_id": "4f3c"}


def test_a_failure_is_a_warning_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    record = told(caplog, JOB.failed("/raw/a.tif: no such file", finished=101.0))
    assert (record.levelname, record.getMessage()) == ("WARNING", "failed: /raw/a.tif: no such file")
    assert vars(record).items() >= {"job_id": "4f3c", "run_uid": "run", "outcome": "failed"}.items()
    assert "output" not in vars(record)


def test_a_sidecar_that_was_left_behind_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    report = FrameReport(
        job_id="4f3c",
        source="/raw/a.tif",
        output="/processed/a.tif",
        outcome="converted",
        reason="the sidecar could not be copied: the disk is full",
        finished=101.0,
    )
    record = told(caplog, report)
    text = "converted: /raw/a.tif -> /processed/a.tif, but the sidecar could not be copied: the disk is full"
    assert (record.levelname, record.getMessage()) == ("WARNING", text)
    assert vars(record)["job_id"] == "4f3c"


def test_a_converted_frame_is_information_with_its_times(caplog: pytest.LogCaptureFixture) -> None:
    report = FrameReport(
        job_id="4f3c",
        source="/raw/a.tif",
        output="/processed/a.tif",
        outcome="converted",
        conversion_time=0.5,
        latency=0.75,
        finished=101.0,
    )
    record = told(caplog, report)
    assert (record.levelname, record.getMessage()) == ("DEBUG", "converted: /raw/a.tif -> /processed/a.tif")
    assert vars(record).items() >= {"conversion_time": 0.5, "latency": 0.75, "output": "/processed/a.tif"}.items()


def test_run_is_summarized_once_when_its_frames_have_paused(caplog: pytest.LogCaptureFixture) -> None:
    summaries = RunSummaries(pause=30.0)
    assert summaries.due is None
    with caplog.at_level(logging.INFO):
        for seconds in (0.0, 10.0, 20.0):
            summaries.add(report("a", run_uid="run"), 100.0 + seconds)
        summaries.add(report("b", "failed", run_uid="run"), 125.0)
        summaries.add(report("c", "skipped"), 126.0)
        assert summaries.due == 155.0
        summaries.log_due(154.9)
        assert not caplog.records
        summaries.log_due(155.0)
        (of_run,) = caplog.records
        summaries.log_due(155.0)
        summaries.log_all()
    assert (of_run.levelname, of_run.getMessage()) == ("INFO", "run run: 3 converted, 1 failed in 25.0 s")
    assert vars(of_run)["run_uid"] == "run"
    assert [record.getMessage() for record in caplog.records[1:]] == ["frames without a run: 1 skipped in 0.0 s"]
