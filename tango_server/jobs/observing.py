"""Looks at the files of a job: whether its source is complete, whether its sidecar has come."""

import logging
from pathlib import Path

from tango_server.conversion.errors import ConversionError, SourceMissingError
from tango_server.conversion.paths import Roots
from tango_server.conversion.sidecar import carry_sidecar
from tango_server.conversion.structure import read_structure
from tango_server.jobs.log_lines import about
from tango_server.jobs.vocabulary import Job, Observed, SidecarLooked

_log = logging.getLogger(__name__)


def look_at_source(job: Job, roots: Roots) -> Observed:
    """Look at a job's source, within the roots."""
    try:
        return Observed(job.job_id, read_structure(job.source, roots))
    except SourceMissingError:
        return Observed(job.job_id, None)
    except ConversionError as error:
        return Observed(job.job_id, None, error.found)


def carry_sidecar_of(job: Job, output: Path, roots: Roots) -> SidecarLooked:
    """Carry the sidecar of a converted frame to its output if it is there, within the roots."""
    try:
        carried = carry_sidecar(job.source, output, job.recipe, job.job_id, roots)
        return SidecarLooked(job.job_id, carried == "carried")
    except ConversionError as error:  # the image is converted; a sidecar that can't follow is told and no failure
        _log.warning("its sidecar can't be carried: %s", error, extra=about(job))
        return SidecarLooked(job.job_id, carried=False)
