"""Scheduling settings."""

from dataclasses import dataclass, field, replace
from typing import Self

from tango_server.jobs.state_machine.readiness import ReadinessRule
from tango_server.settings import Settings

_SMALL_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class ServiceRules:
    """Scheduling settings. `run_readiness` applies to frames of a run, which the detector has announced.

    A worker gets one frame at a time, or up to `small_at_once` small ones. With `placeholders` a frame of zeros
    replaces a file that never arrives, with `placeholder_shape` (rows, columns) unless its request has another shape.
    """

    workers: int = 2
    small_at_once: int = 1
    readiness: ReadinessRule = field(default_factory=ReadinessRule)
    run_readiness: ReadinessRule = field(default_factory=lambda: ReadinessRule(timeout=300.0))
    attempts: int = 3
    sidecar_timeout: float = 2.0
    placeholders: bool = False
    placeholder_shape: tuple[int, int] = (2048, 2048)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the rules from the settings of a server."""
        rule = ReadinessRule(
            settings.settle_time,
            settings.settle_complete,
            settings.min_size,
            settings.timeout,
            by_age=settings.readiness == "age",
        )
        return cls(
            workers=settings.numworkers,
            small_at_once=_SMALL_AT_ONCE if settings.executor == "process" else 1,
            readiness=rule,
            run_readiness=replace(rule, timeout=settings.run_timeout),
            attempts=settings.attempts,
            sidecar_timeout=settings.sidecar_timeout,
            placeholders=settings.on_timeout == "placeholder",
            placeholder_shape=settings.placeholder_shape,
        )
