"""What a worker of a Dask cluster does with a task. The only part of a cluster that its workers import."""

import platform
from dataclasses import dataclass

from distributed import Event, get_worker

from tango_server.conversion.tiff.provenance import package_version
from tango_server.jobs.executors import worker
from tango_server.jobs.executors.worker import Failure, Task
from tango_server.messages import FrameReport


@dataclass(frozen=True, slots=True)
class Declined:
    """Why a worker of the cluster did not convert a frame; one of its kinds."""

    reason: str


@dataclass(frozen=True, slots=True)
class BegunBefore(Declined):
    """Another worker had begun with the task and was lost, or its answer was: how far it came nobody knows."""


@dataclass(frozen=True, slots=True)
class Unlike(Declined):
    """The worker runs another version than the server, which may turn a frame in another way."""


@dataclass(frozen=True, slots=True)
class Unseen(Declined):
    """There is no such file where the worker runs: `failure`, if it is the same where the server runs."""

    failure: Failure


def run_once(task: Task, mark: str, version: str) -> FrameReport | Failure | Declined:
    """Convert the frame of `task` unless the event `mark` says that somebody has begun to; set it."""
    here = f"the Dask worker at {get_worker().address} (host {platform.node()})"
    if version != package_version():
        return Unlike(
            f"{here} runs petif-bluesky {package_version()}, the server {version}; expected the same version. "
            "Install the server's version there and restart that worker."
        )
    begun = Event(mark)
    if begun.is_set():
        return BegunBefore("the Dask worker that converted it was lost (was it killed, or did the memory run out?)")
    begun.set()
    result = worker.run(task)
    if isinstance(result, Failure) and result.kind == "not_ready" and not task.job.source.exists():
        return Unseen(
            f"{task.job.source}: {here} sees no such file; expected the server's file system at the same path. "
            "Mount it there, or take that worker out of the cluster.",
            result,
        )
    return result
