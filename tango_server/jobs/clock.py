"""The one clock of the job service."""

import time

from tango_server.jobs.state_machine.events import Instant


def now() -> Instant:
    """Read both clocks."""
    return Instant(monotonic=time.monotonic(), wall=time.time())
