"""How the server is, in one word and one sentence."""

import pytest

from tango_server.jobs.state_machine.server_state import server_state
from tango_server.jobs.state_machine.snapshot import Snapshot

FAILED = Snapshot(failed=1, unacknowledged=1, last_error="/raw/a.tif: broken")
BUSY = Snapshot(queue_length=3, running=2)


@pytest.mark.parametrize(
    ("snapshot", "fault", "word"),
    [
        (Snapshot(), "", "ON"),
        (Snapshot(converted=5, failed=2), "", "ON"),
        (Snapshot(queue_length=1), "", "RUNNING"),
        (BUSY, "", "RUNNING"),
        (FAILED, "", "ALARM"),
        (Snapshot(queue_length=3, unacknowledged=1), "", "ALARM"),
        (Snapshot(), "no ledger", "FAULT"),
        (Snapshot(queue_length=3, unacknowledged=1), "no ledger", "FAULT"),
    ],
    ids=[
        "idle", "failures acknowledged", "waiting", "working", "failed", "failed while working", "fault",
        "fault before all",
    ],
)  # fmt: skip
def test_the_first_state_that_holds_is_shown(snapshot: Snapshot, fault: str, word: str) -> None:
    assert server_state(snapshot, fault)[0] == word


def test_fault_is_reported_in_its_own_words() -> None:
    assert server_state(BUSY, "the ledger is locked. End the other server.")[1] == (
        "the ledger is locked. End the other server."
    )


def test_status_reports_the_work_and_everything_done() -> None:
    numbers = Snapshot(queue_length=3, running=2, converted=10, skipped=20, placeholders=30, failed=4)
    status = server_state(numbers, "")[1]
    for words in ("3 frames queued", "2 of them converting", "60 done", "4 failed"):
        assert words in status


def test_alarm_names_the_last_failure_and_the_remedy() -> None:
    status = server_state(FAILED, "")[1]
    assert "/raw/a.tif: broken" in status
    assert "Acknowledge" in status
    assert "1 failed" in status


def test_warning_is_reported_while_nothing_worse_is() -> None:
    word, status = server_state(Snapshot(warning="20 GB are free"), "")
    assert (word, "Warning: 20 GB are free" in status) == ("ON", True)
    word, status = server_state(Snapshot(warning="20 GB are free", alarms=("the disk is full",)), "")
    assert (word, "20 GB" in status, status.endswith("the disk is full")) == ("ALARM", False, True)
