"""What the log says of a job, and the fields of its lines."""

import logging

import pytest

from tango_server.jobs.job_log import about, log_finished
from tango_server.messages import FrameReport
from tests.unit.ledger_entries import job

JOB = job("4f3c", "run")


def told(caplog: pytest.LogCaptureFixture, report: FrameReport) -> logging.LogRecord:
    with caplog.at_level(logging.INFO):
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
    assert (record.levelname, record.getMessage()) == ("INFO", "converted: /raw/a.tif -> /processed/a.tif")
    assert vars(record).items() >= {"conversion_time": 0.5, "latency": 0.75, "output": "/processed/a.tif"}.items()
