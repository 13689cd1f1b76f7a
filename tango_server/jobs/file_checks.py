"""Checks the files of a job: is the source complete, has the sidecar arrived; writes the companions."""

import logging
import os
import traceback
from pathlib import Path

from tango_server.conversion.errors import (
    ConversionError,
    NotATiffError,
    OutputWriteError,
    PathError,
    SourceError,
    SourceMissingError,
    UnsupportedImageError,
)
from tango_server.conversion.esperanto.experiment import awaits_sidecar
from tango_server.conversion.file_state import FileState
from tango_server.conversion.files.frame_file import open_frame_file
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import ANYWHERE, Roots
from tango_server.conversion.formats import check_file
from tango_server.conversion.sidecar import carry_sidecar, read_sidecar, sidecar_error
from tango_server.jobs.job import Job
from tango_server.jobs.job_log import about
from tango_server.jobs.state_machine.events import AttemptFailed, Observed, ObservedDark, SidecarObserved

_log = logging.getLogger(__name__)

_WITH_SIDECAR = (".tif", ".tiff")
"""Files of other formats than QXRD's have no sidecar, but a header of their own."""
Messages = list[tuple[int, str]]
"""Messages for the log with their levels, from a process without one."""


def observe_source(
    job: Job, roots: Roots, darks: tuple[Path, ...] = (), *, may_crash: bool = True
) -> Observed | AttemptFailed:
    """Check a job's source and `darks` of its run, within the roots. A path that now leads outside fails at once.

    Raises
    ------
    OwnProcessNeededError
        if the reader of one of the files might kill this process, and this process may not crash.
    """
    try:
        state = state_of(job.location, roots, may_crash=may_crash)
        lacks_sidecar = _lacks_sidecar(job, state, roots)
        found = tuple(_observe_dark(file, roots.named, may_crash=may_crash) for file in darks)
        return Observed(job.job_id, state, lacks_sidecar=lacks_sidecar, darks=found)
    except SourceMissingError:
        return Observed(job.job_id, None)
    except PathError as error:
        return AttemptFailed(job.job_id, "final", str(error))
    except ConversionError as error:
        return Observed(job.job_id, None, error.problem)


def state_of(location: FrameLocation, roots: Roots = ANYWHERE, *, may_crash: bool = True) -> FileState:
    """Return the state of a frame or a file, `damaged` for one of an unknown kind: raises as `check_file` otherwise.

    Such a file must hold still, too, before its conversion reports the error: it may be the beginning of another one.
    """
    try:
        return check_file(location, roots, may_crash=may_crash)
    except (NotATiffError, UnsupportedImageError) as error:
        try:
            with open_frame_file(location.file, roots) as file:
                status = os.fstat(file.fileno())
        except OSError:  # it has just vanished
            raise error from None
        return FileState("damaged", error.problem, status.st_size, status.st_mtime_ns, status.st_ino)


def _observe_dark(file: Path, roots: Roots, *, may_crash: bool) -> ObservedDark:
    """Check a dark of the frame's run; raise `PathError` if its path now leads outside the roots."""
    try:
        state = state_of(FrameLocation(file), roots, may_crash=may_crash)
        return ObservedDark(file, state, lacks_sidecar=state.sidecar_expected and _has_no_sidecar(file, roots))
    except SourceMissingError:
        return ObservedDark(file, None)
    except SourceError as error:
        return ObservedDark(file, None, error.problem)


def _lacks_sidecar(job: Job, state: FileState, roots: Roots) -> bool:
    """Return whether the conversion needs a sidecar that does not exist yet: for a header, or for corrections."""
    header, corrections = job.recipe.esperanto, job.recipe.corrections
    may_come = job.source.suffix.lower() in _WITH_SIDECAR
    needed = header is not None and may_come and awaits_sidecar(job.source, header, job.fields)
    if corrections is not None and (corrections.dark is not None or corrections.saturation is not None):
        needed = needed or state.sidecar_expected
    if job.recipe.combine is not None:  # a group's sidecar is made from those of its members, with its output
        needed = needed or state.sidecar_expected
    return needed and _has_no_sidecar(job.source, roots)


def _has_no_sidecar(image: Path, roots: Roots) -> bool:
    try:
        return read_sidecar(image, roots) is None
    except SourceError:  # it exists, and the conversion will report the error
        return False


def carry_sidecar_of(job: Job, output: Path, roots: Roots) -> SidecarObserved | AttemptFailed:
    """Copy the sidecar of a converted frame to its output if it exists, within the roots."""
    try:
        carried = carry_sidecar(job.source, output, job.recipe, job.job_id, roots)
        return SidecarObserved(job.job_id, carried == "carried")
    except PathError as error:
        return AttemptFailed(job.job_id, "final", sidecar_error(error))
    except ConversionError as error:
        blocked = isinstance(error, OutputWriteError) and error.may_pass
        return SidecarObserved(job.job_id, carried=False, problem=sidecar_error(error), blocked=blocked)


def write_companions_of(job: Job, output: Path, roots: Roots) -> Messages:
    """Write the companions of the scan that a converted frame belongs to; return what to log, by level."""
    from tango_server.conversion.esperanto.companions import companions_of  # noqa: PLC0415 - rarely needed

    try:
        done = companions_of(job.location, output, job.recipe, roots, job.job_id, fields=job.fields)
    except (ConversionError, OSError) as error:
        return [(logging.WARNING, f"{output}: cannot write the companions of this scan: {error}")]
    except Exception:  # noqa: BLE001 - the frame itself is converted
        return [(logging.ERROR, f"{output}: cannot write the companions of this scan\n{traceback.format_exc()}")]
    written = [(logging.INFO, f"{output.parent}: wrote {', '.join(done.written)}")] if done.written else []
    return [*written, *((logging.WARNING, note) for note in done.notes)]


def log_companions(job: Job, messages: "Messages | Observed | AttemptFailed") -> None:
    """Log the result of `write_companions_of`, or why there is none."""
    if isinstance(messages, AttemptFailed):
        messages = [(logging.WARNING, f"cannot write the companions of this scan: {messages.reason}")]
    if isinstance(messages, list):
        for level, message in messages:
            _log.log(level, "%s", message, extra=about(job))
