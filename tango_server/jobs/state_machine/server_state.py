"""The Tango state and the status message of the server."""

from typing import Literal

from tango_server.jobs.state_machine.snapshot import Snapshot

StateName = Literal["FAULT", "STANDBY", "ALARM", "RUNNING", "ON"]


def server_state(snapshot: Snapshot, fault: str) -> tuple[StateName, str]:
    """Return the state, the first that applies of FAULT, STANDBY, ALARM, RUNNING and ON, and the status message.

    >>> server_state(Snapshot(queue_length=3, running=2), "")
    ('RUNNING', '3 frames queued, 2 of them converting; 0 done, 0 failed')
    """
    if fault:
        return "FAULT", fault
    done = snapshot.converted + snapshot.skipped + snapshot.placeholders + snapshot.grouped + snapshot.superseded
    work = (
        f"{snapshot.queue_length} frames queued, {snapshot.running} of them converting; "
        f"{done} done, {snapshot.failed} failed"
    )
    sentences = [work]
    if snapshot.scanned:
        sentences.append(f"Scanning a folder: {snapshot.scanned} frames found so far")
    if snapshot.warning and not snapshot.alarms:
        sentences.append(f"Warning: {snapshot.warning}")
    if snapshot.paused:
        sentences.insert(0, "Paused: no conversions start until Resume")
    alarms = [*snapshot.alarms]
    if snapshot.unacknowledged:
        alarms.append(f"Last failure: {snapshot.last_error} (Acknowledge clears the alarm)")
    status = ". ".join([*sentences, *alarms])
    if snapshot.paused:
        return "STANDBY", status
    if alarms:
        return "ALARM", status
    return ("RUNNING", status) if snapshot.queue_length else ("ON", status)
