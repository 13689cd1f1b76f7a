"""Waiting for what a server does: for the thing itself, never for a length of time."""

import json
import time
from collections.abc import Callable
from typing import Any

import psutil
import tango

PATIENCE = 60.0


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come true within {PATIENCE} s")
        time.sleep(0.02)


def all_done(proxy: tango.DeviceProxy) -> None:
    until(lambda: proxy.read_attribute("QueueLength").value == 0, "the queue is empty")


def submit(proxy: tango.DeviceProxy, *requests: dict[str, Any], runs: tuple[str, ...] = ()) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(
        proxy.command_inout("Submit", json.dumps({"requests": requests, "runs": list(runs)}))
    )
    return answer


def reports(proxy: tango.DeviceProxy, answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the reports of the accepted jobs of an answer, once all are there."""
    query = json.dumps({"job_ids": [job["job_id"] for job in answer["jobs"]]})
    found: dict[str, Any] = {}

    def complete() -> bool:
        found.update(json.loads(proxy.command_inout("GetReports", query)))
        return found["pending"] == 0

    until(complete, "every job has its report")
    result: list[dict[str, Any]] = found["reports"]
    return result


def workers_of(pid: int) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(pid).children()
        if "spawn_main" in " ".join(child.cmdline()) and "resource_tracker" not in " ".join(child.cmdline())
    ]
