"""Everything that can be set about a server, validated in one place."""

import json
import os
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tango_server.conversion.paths import Roots
from tango_server.jobs.readiness import ReadinessRule
from tango_server.jobs.service import ServiceRules
from tango_server.recipe import Recipe

LEDGER_NAME = "ledger.sqlite"


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(f"a relative path depends on where the server is started; give the whole path of {path}")
    return path


def _from_json(value: object) -> object:
    """Take a recipe in JSON, as Tango properties and the command line bring it."""
    return json.loads(value) if isinstance(value, str) else value


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Settings(BaseModel):
    """The settings of one server. Times in s, sizes in bytes.

    `read_roots` and `write_roots` are the folders that may be read and written; `recipe` holds for requests that bring
    none; `sidecar_timeout` is how long a report waits for QXRD's sidecar (0: not at all), `time_limit` is for one
    conversion, `attempts` how often a frame is given to a worker before it fails.
    For the others see `tango_server.jobs.readiness`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    read_roots: Annotated[tuple[AbsolutePath, ...], Field(min_length=1)]
    write_roots: tuple[AbsolutePath, ...] = ()
    state_dir: AbsolutePath
    numworkers: Annotated[int, Field(ge=1, le=256)] = Field(default_factory=lambda: min(os.cpu_count() or 1, 4))
    recipe: Annotated[Recipe, BeforeValidator(_from_json)] = Recipe.preset("xdi")
    settle_time: Seconds = 3.0
    settle_complete: Seconds = 0.0
    min_size: Annotated[int, Field(ge=0)] = 0
    timeout: Seconds = 15.0
    run_timeout: Seconds = 300.0
    time_limit: Annotated[float, Field(gt=0)] = 60.0
    attempts: Annotated[int, Field(ge=1)] = 3
    sidecar_timeout: Seconds = 2.0

    @model_validator(mode="after")
    def _patient_enough(self) -> Self:
        settle = max(self.settle_time, self.settle_complete)
        for name, timeout in (("timeout", self.timeout), ("run_timeout", self.run_timeout)):
            if timeout <= settle:
                raise ValueError(f"{name} ({timeout:g} s) must be longer than the time to settle ({settle:g} s)")
        return self

    @classmethod
    def merged(cls, *layers: dict[str, Any]) -> "Settings":
        """Return the settings of several layers, later ones over earlier ones; raise `ValidationError`."""
        fields: dict[str, Any] = {}
        for layer in layers:
            fields.update(layer)
        return cls.model_validate(fields)

    @property
    def ledger_path(self) -> Path:
        """Where the ledger lies."""
        return self.state_dir / LEDGER_NAME

    def roots(self) -> Roots:
        """The folders that may be read and written, resolved now."""
        return Roots.of(self.read_roots, self.write_roots)

    def service_rules(self) -> ServiceRules:
        """What the job service goes by."""
        rule = ReadinessRule(self.settle_time, self.settle_complete, self.min_size, self.timeout)
        run_rule = ReadinessRule(self.settle_time, self.settle_complete, self.min_size, self.run_timeout)
        return ServiceRules(
            workers=self.numworkers,
            readiness=rule,
            run_readiness=run_rule,
            attempts=self.attempts,
            sidecar_timeout=self.sidecar_timeout,
        )
