"""The one clock of the job service."""

import time

from tango_server.jobs.state_machine.events import Reading


def now() -> Reading:
    """Look at both clocks."""
    return Reading(monotonic=time.monotonic(), wall=time.time())
