"""How the server is, in one word and in one sentence for people."""

from typing import Literal

from tango_server.jobs.state_machine.events import Snapshot

Word = Literal["FAULT", "STANDBY", "ALARM", "RUNNING", "ON"]


def server_state(snapshot: Snapshot, fault: str) -> tuple[Word, str]:
    """Return the state, the first that holds of FAULT, STANDBY, ALARM, RUNNING and ON, and what to tell people.

    >>> server_state(Snapshot(queue_length=3, running=2), "")
    ('RUNNING', '3 frames to go, 2 of them being converted; 0 done, 0 failed')
    """
    if fault:
        return "FAULT", fault
    done = snapshot.converted + snapshot.skipped + snapshot.placeholders
    work = (
        f"{snapshot.queue_length} frames to go, {snapshot.running} of them being converted; "
        f"{done} done, {snapshot.failed} failed"
    )
    sentences = [work]
    if snapshot.gathering:
        sentences.append(f"Going through a folder: {snapshot.gathering} frames found so far")
    if snapshot.warning and not snapshot.alarms:
        sentences.append(f"Warning: {snapshot.warning}")
    if snapshot.paused:
        sentences.insert(0, "Paused: no conversion is started until Resume")
    alarms = [*snapshot.alarms]
    if snapshot.unacknowledged:
        alarms.append(f"The last failure: {snapshot.last_error} (Acknowledge ends the alarm)")
    status = ". ".join([*sentences, *alarms])
    if snapshot.paused:
        return "STANDBY", status
    if alarms:
        return "ALARM", status
    return ("RUNNING", status) if snapshot.queue_length else ("ON", status)
