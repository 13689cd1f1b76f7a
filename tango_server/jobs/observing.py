"""Looks at the files of a job: whether its source is complete, whether its sidecar has come."""

import logging
from pathlib import Path

from tango_server.conversion.errors import ConversionError, SourceMissingError
from tango_server.conversion.paths import ANYWHERE, Roots
from tango_server.conversion.sidecar import carry_sidecar
from tango_server.conversion.structure import read_structure
from tango_server.jobs.log_lines import about
from tango_server.jobs.vocabulary import Job, Observed, SidecarLooked

_log = logging.getLogger(__name__)


def look_at_source(job: Job) -> Observed:
    """Look at a job's source."""
    try:
        return Observed(job.job_id, read_structure(job.source, _roots_of(job)))
    except SourceMissingError:
        return Observed(job.job_id, None)
    except ConversionError as error:
        return Observed(job.job_id, None, error.found)


def _roots_of(job: Job) -> Roots:
    """Return the roots of when the job was accepted; where they were not kept, workers are the ones that check."""
    if job.source_root is None or job.output_root is None:
        return ANYWHERE
    return Roots(read=(job.source_root,), write=(job.output_root,))


def carry_sidecar_of(job: Job, output: Path) -> SidecarLooked:
    """Carry the sidecar of a converted frame to its output if it is there."""
    try:
        return SidecarLooked(
            job.job_id, carry_sidecar(job.source, output, job.recipe, job.job_id, _roots_of(job)) == "carried"
        )
    except ConversionError as error:  # the image is converted; a sidecar that can't follow is told and no failure
        _log.warning("its sidecar can't be carried: %s", error, extra=about(job))
        return SidecarLooked(job.job_id, carried=False)
