"""What a worker does, be it a process, a thread or a node of a cluster: one conversion at a time in each thread."""

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Literal

from tango_server.conversion.errors import (
    ConversionError,
    IncompleteFileError,
    OutputWriteError,
    SourceChangedError,
    SourceMissingError,
)
from tango_server.conversion.files.roots import Roots
from tango_server.jobs.job import Job
from tango_server.messages import FrameReport
from tango_server.text import LONGEST_MESSAGE, printable


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is given: a job, and the roots within which it may read and write.

    With `placeholder` (rows, columns of the source) a frame of zeros is wanted instead, since the file never came:
    `reason`.
    """

    job: Job
    roots: Roots
    placeholder: tuple[int, int] | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a frame can't be converted, in words that a person can act on."""

    kind: Literal["final", "not_ready", "blocked"]
    reason: str
    trace: str = ""
    """Where an error that should not occur was raised, for the log."""


def prepare() -> None:
    """Make a fresh worker process ready: bound to its server's life, libraries loaded.

    Ctrl-C and the end of a terminal go to the whole group of processes: it is the server that ends its workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), name="petif-guard", daemon=True).start()
    warm_up()


def serve(server: "Connection[object, list[Task]]", get_ready: Callable[[], None]) -> None:
    """Be a worker process: get ready and tell so (None, or why not), then answer tasks until the server has ended.

    A process that was stopped for a while may find its server dead, and others at its task: it begins with nothing.
    """
    try:
        get_ready()
    except BaseException as error:  # noqa: BLE001 - the server tells it
        server.send(error)
        return
    server.send(None)
    with contextlib.suppress(EOFError, OSError):  # the other end is gone
        while True:
            server.send([_run_for_server(task) for task in server.recv()])


def _run_for_server(task: Task) -> FrameReport | Failure:
    parent = multiprocessing.parent_process()
    if parent is not None and wait([parent.sentinel], timeout=0):
        os._exit(1)
    return run(task)


def warm_up() -> None:
    """Load the libraries, so that the first frame doesn't wait for them."""
    import tango_server.conversion.convert  # noqa: F401, PLC0415 - the server itself needs no numpy


def run(task: Task) -> FrameReport | Failure:
    """Convert the frame of `task`.

    It may run in several threads, and while an earlier attempt at the job, taken for dead, is still at work: that one
    has lost its temporary file, or one of the two finds what the other made, which tells the job.
    """
    try:
        return _attempt(task)
    except (IncompleteFileError, SourceMissingError, SourceChangedError) as error:
        return Failure("not_ready", str(error))
    except OutputWriteError as error:
        return Failure("blocked" if error.may_pass else "final", str(error))
    except ConversionError as error:
        return Failure("final", str(error))
    except Exception as error:  # noqa: BLE001 - whatever a file holds, it costs this frame alone
        reason = f"{task.job.source}: it can't be converted ({type(error).__name__}: {error}). The log has the details."
        return Failure("final", printable(reason, LONGEST_MESSAGE), traceback.format_exc())


def _attempt(task: Task) -> FrameReport:
    from tango_server.conversion.convert import convert_file  # noqa: PLC0415 - the server itself needs no numpy
    from tango_server.conversion.placeholder import make_placeholder  # noqa: PLC0415 - as above

    job = task.job
    if task.placeholder is not None:
        return make_placeholder(
            job.source, job.recipe, task.placeholder, output=job.output, roots=task.roots, reason=task.reason,
            token=job.job_id, job=job.record_id, fields=job.fields,
        )  # fmt: skip
    return convert_file(
        job.source, job.recipe, output=job.output, roots=task.roots,
        token=job.job_id, job=job.record_id, fields=job.fields,
    )  # fmt: skip


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
