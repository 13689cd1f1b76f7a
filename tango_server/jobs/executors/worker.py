"""The work of a worker, in a process, a thread or on a cluster: one conversion at a time per thread."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Literal, TypeVar

from tango_server.conversion.errors import (
    ConversionError,
    GroupIncompleteError,
    GroupNotReadyError,
    IncompleteFileError,
    OutputWriteError,
    SourceChangedError,
    SourceMissingError,
)
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import Roots
from tango_server.jobs.job import Job, Part
from tango_server.messages import FrameReport
from tango_server.text import LONGEST_MESSAGE, printable

Work = TypeVar("Work")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Task:
    """A job, and the roots within which the worker may read and write.

    With `placeholder` (rows, columns of the source), write a frame of zeros, because the file never arrived: `reason`.
    `proven`: inode, size and modification time of the source when the server checked it; None if it did not.
    `members`: of a group, in their order.
    """

    job: Job
    roots: Roots
    placeholder: tuple[int, int] | None = None
    reason: str = ""
    proven: tuple[int, int, int] | None = None
    members: tuple[Part, ...] = ()

    @property
    def frames(self) -> int:
        """The number of frames to read, each of which has its time."""
        return max(len(self.members), 1)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a frame can't be converted, and what to do; for a group, which members by number have which problem."""

    kind: Literal["final", "not_ready", "blocked"]
    reason: str
    trace: str = ""
    """Traceback of an unexpected error, for the log."""
    members: Mapping[int, str] = field(default_factory=dict)


def prepare() -> None:
    """Prepare a new worker process: make it exit with its server, and load the libraries.

    Ctrl-C and the closing of a terminal reach the whole process group, but it is the server that stops its workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), name="petif-guard", daemon=True).start()
    warm_up()
    from tango_server.conversion.hdf5.open_files import keep_open  # noqa: PLC0415 - not in the server's own process

    keep_open()


def serve(
    server: "Connection[object, list[Work]]", initialise: Callable[[], None], run: Callable[[Work], object]
) -> None:
    """Initialise a worker process, report that (None, or the error), then `run` tasks until the server has stopped.

    A process that was suspended may find its server dead and its task taken over: then it starts nothing.
    """
    try:
        initialise()
    except BaseException as error:  # noqa: BLE001 - the server reports it
        server.send(error)
        return
    server.send(None)
    with contextlib.suppress(EOFError, OSError):  # the other end is gone
        while True:
            server.send([_run_for_server(run, task) for task in server.recv()])


def _run_for_server(run: Callable[[Work], Answer], task: Work) -> Answer:
    parent = multiprocessing.parent_process()
    if parent is not None and wait([parent.sentinel], timeout=0):
        os._exit(1)
    return run(task)


def warm_up() -> None:
    """Load the libraries, so that the first frame doesn't wait for them."""
    import tango_server.conversion.convert  # noqa: F401, PLC0415 - the server itself needs no numpy


def run(task: Task) -> FrameReport | Failure:
    """Convert the frame of `task`.

    May run in several threads, and while an earlier attempt at the job, believed dead, is still running: that one has
    lost its temporary file, or one of the two finds the output of the other, which records the job.
    """
    try:
        return _attempt(task)
    except GroupIncompleteError as error:
        waits = isinstance(error, GroupNotReadyError)
        return Failure("not_ready" if waits else "final", str(error), members=error.members)
    except (IncompleteFileError, SourceMissingError, SourceChangedError) as error:
        return Failure("not_ready", str(error))
    except OutputWriteError as error:
        return Failure("blocked" if error.may_pass else "final", str(error))
    except ConversionError as error:
        return Failure("final", str(error))
    except Exception as error:  # noqa: BLE001 - only this frame fails
        reason = (
            f"{task.job.source}: cannot convert: unexpected {type(error).__name__}: {error}. The log has the details."
        )
        return Failure("final", printable(reason, LONGEST_MESSAGE), traceback.format_exc())


def _attempt(task: Task) -> FrameReport:
    from tango_server.conversion.convert import convert_file  # noqa: PLC0415 - the server itself needs no numpy
    from tango_server.conversion.placeholder import make_placeholder  # noqa: PLC0415 - as above

    job = task.job
    if task.placeholder is not None:
        return make_placeholder(
            job.location, job.recipe, task.placeholder, output=job.output, roots=task.roots, reason=task.reason,
            token=job.job_id, job=job.record_id, fields=job.fields,
        )  # fmt: skip
    if job.is_group:
        return _combine(task)
    return convert_file(
        replace(job.location, proven=task.proven), job.recipe, output=job.output, roots=task.roots,
        token=job.job_id, job=job.record_id, fields=job.fields, corrections=job.corrections,
    )  # fmt: skip


def _combine(task: Task) -> FrameReport:
    from tango_server.conversion.combining.earlier_outputs import withdraw  # noqa: PLC0415 - as below
    from tango_server.conversion.combining.group import convert_group  # noqa: PLC0415 - the server needs no numpy
    from tango_server.conversion.combining.members import Member  # noqa: PLC0415 - as above

    job = task.job
    if not task.members:
        reason = f"all its frames were superseded. {withdraw(job.earlier, task.roots, job.record_id)}".strip()
        return job.failed(reason, time.time()).model_copy(update={"outcome": "superseded"})
    members = [
        Member(FrameLocation(Path(f"frame {number}")), problem=part.problem)
        if part.job is None
        else Member(replace(part.job.location, proven=part.proven), part.job.fields, part.job.corrections, part.problem)
        for number, part in enumerate(task.members)
    ]
    return convert_group(
        members, job.recipe, group=job.group, output=job.output, roots=task.roots,
        token=job.job_id, job=job.record_id, awaiting=job.accepted is not None, earlier=job.earlier,
    )  # fmt: skip


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
