"""What the job service goes by."""

from dataclasses import dataclass, field

from tango_server.jobs.readiness import ReadinessRule


@dataclass(frozen=True, slots=True)
class ServiceRules:
    """What the service goes by. `run_readiness` holds for frames of a run, which the detector has announced.

    With `placeholders` a new frame of zeros takes the place of a file that never came, of `placeholder_shape` (rows,
    columns) unless its request tells another.
    """

    workers: int = 2
    readiness: ReadinessRule = field(default_factory=ReadinessRule)
    run_readiness: ReadinessRule = field(default_factory=lambda: ReadinessRule(timeout=300.0))
    attempts: int = 3
    sidecar_timeout: float = 2.0
    placeholders: bool = False
    placeholder_shape: tuple[int, int] = (2048, 2048)
