"""Runs a task on a Dask worker. The only part of the Dask executor that its workers import."""

import platform
from dataclasses import dataclass

from distributed import Event, get_worker

from tango_server.conversion.provenance import package_version
from tango_server.jobs.executors import worker
from tango_server.jobs.executors.worker import Failure, Task
from tango_server.messages import FrameReport


@dataclass(frozen=True, slots=True)
class Declined:
    """Base class: why a Dask worker did not convert a frame."""

    reason: str


@dataclass(frozen=True, slots=True)
class BegunBefore(Declined):
    """Another worker had started the task; it or its answer was lost, and how far it got is unknown."""


@dataclass(frozen=True, slots=True)
class Unlike(Declined):
    """The worker runs another version than the server, which may convert differently."""


@dataclass(frozen=True, slots=True)
class Unseen(Declined):
    """The worker can't see the file; `failure` is the result if the server can't see it either."""

    failure: Failure


def run_once(task: Task, mark: str, version: str) -> FrameReport | Failure | Declined:
    """Convert the frame of `task` unless the event `mark` shows that it was started before; set the mark."""
    here = f"the Dask worker at {get_worker().address} (host {platform.node()})"
    if version != package_version():
        return Unlike(
            f"{here} runs petif-bluesky {package_version()}, but the server runs {version}. "
            "Install the server's version there and restart the worker."
        )
    begun = Event(mark)
    if begun.is_set():
        return BegunBefore("the Dask worker that converted it was lost (killed, or out of memory?)")
    begun.set()
    result = worker.run(task)
    if isinstance(result, Failure) and (missing := task.job.missing_file) is not None:
        return Unseen(
            f"{missing}: {here} cannot see this file, but the server can. Mount the file system there at the "
            "same path, or remove the worker from the cluster.",
            result,
        )
    return result
