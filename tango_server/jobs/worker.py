"""What runs in a worker process: one conversion at a time, and an end when the server ends."""

import multiprocessing
import os
import signal
import threading
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tango_server.conversion.errors import ConversionError, IncompleteFileError, OutputWriteError, SourceMissingError
from tango_server.conversion.paths import Roots
from tango_server.conversion.publish import remove_leftovers
from tango_server.messages import FrameReport
from tango_server.recipe import Recipe

if TYPE_CHECKING:
    from tango_server.conversion.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is given. `token` names this job's temporary files.

    With `placeholder` (rows, columns of the source) a frame of zeros is wanted instead, since the file never came:
    `reason`.
    """

    source: Path
    output: Path
    recipe: Recipe
    roots: Roots
    token: str
    attempt: int
    placeholder: tuple[int, int] | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a frame can't be converted, in words that a person can act on."""

    kind: Literal["final", "not_ready", "blocked"]
    reason: str


def prepare() -> None:
    """Make a fresh worker process ready: deaf to Ctrl-C, bound to its server's life, libraries loaded."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), name="petif-guard", daemon=True).start()
    _workspace()  # so that the first frame doesn't wait for the libraries


def run(task: Task) -> FrameReport | Failure:
    """Convert the frame of `task`."""
    from tango_server.conversion.convert import convert_file  # noqa: PLC0415 - the server itself needs no numpy
    from tango_server.conversion.placeholder import make_placeholder  # noqa: PLC0415 - as above

    if task.attempt > 1:
        remove_leftovers(task.output, task.token)
    try:
        if task.placeholder is not None:
            return make_placeholder(
                task.source,
                task.recipe,
                task.placeholder,
                output=task.output,
                roots=task.roots,
                reason=task.reason,
                token=task.token,
            )
        return convert_file(
            task.source,
            task.recipe,
            output=task.output,
            roots=task.roots,
            token=task.token,
            workspace=_workspace(),
            resumed=task.attempt > 1,
        )
    except (IncompleteFileError, SourceMissingError) as error:
        return Failure("not_ready", str(error))
    except OutputWriteError as error:  # without a cause in the operating system it stays as it is
        return Failure("blocked" if isinstance(error.__cause__, OSError) else "final", str(error))
    except ConversionError as error:
        return Failure("final", str(error))


@cache
def _workspace() -> "Workspace":
    """Return the memory that all conversions of this process use, one after the other."""
    import tango_server.conversion.convert  # noqa: F401, PLC0415 - loads what a conversion needs, before the first one
    from tango_server.conversion.workspace import Workspace  # noqa: PLC0415 - the server itself needs none of this

    return Workspace()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
