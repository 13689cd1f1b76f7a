"""The settings of a server, and their validation.

The names are keys of the TOML file of `petif serve --config`, and Tango device properties. Properties override the
command line, which overrides the file, which overrides the defaults. Every Init reads all of them again.
"""

import logging
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tango_server.conversion.files.path_map import PathMap, rule_of
from tango_server.conversion.files.roots import Roots
from tango_server.home import state_folder
from tango_server.host_limits import usable_cores
from tango_server.recipe import Recipe, RecipeField

_log = logging.getLogger(__name__)

LEDGER_NAME = "ledger.sqlite"
GIGABYTE = 10**9


class ConfigurationError(ValueError):
    """A configuration file cannot be read."""


def _absolute(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError(f"{str(path)!r} is not a valid path: it contains a NUL character")
    if not path.is_absolute():
        raise ValueError(f"{path} is a relative path; give an absolute one")
    return path


def _without_threads(value: object) -> object:
    """Read the "thread" of earlier versions as "process"."""
    if value != "thread":
        return value
    _log.warning('executor: "thread" is no longer supported, using "process". Change or remove the setting.')
    return "process"


def _as_pairs(value: object) -> object:
    """Accept path maps as a table, or as lines `PREFIX -> FOLDER` (in Tango properties)."""
    if isinstance(value, dict):
        return tuple(value.items())
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple):
        return value
    return tuple(rule_of(line) if isinstance(line, str) else line for line in value)


def _whole_pairs(pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    for prefix, folder in pairs:
        if not prefix.strip():
            raise ValueError(f"the prefix for {folder} is empty")
        _absolute(Path(folder))
    return PathMap(pairs).rules


def _as_shape(value: object) -> object:
    """Accept rows and columns as one text, such as `2048, 2048`, perhaps as the only line of a property."""
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    return re.split(r"[\s,x]+", value.strip()) if isinstance(value, str) else value


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
Folders = Annotated[tuple[AbsolutePath, ...], BeforeValidator(_as_list)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=0)]
Side = Annotated[int, Field(ge=1, le=65_536)]


class Settings(BaseModel):
    """The settings of one server. Times in s, sizes in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    read_roots: Annotated[Folders, Field(min_length=1, description="Folders that may be read")]
    write_roots: Annotated[
        Folders,
        Field(description="Folders that may be written (default: the read roots and their outputs by the path rule)"),
    ] = ()
    state_dir: Annotated[AbsolutePath, Field(description="Folder for the ledger and the logs, on a local disk")]
    path_maps: Annotated[
        tuple[tuple[str, str], ...],
        BeforeValidator(_as_pairs),
        AfterValidator(_whole_pairs),
        Field(description=r"Translation of clients' paths to this host, in lines such as Y:\ -> /gpfs/current"),
    ] = ()
    recipe: Annotated[
        RecipeField,
        Field(description="Recipe for requests without one, until SetRecipe: JSON or the name of a preset"),
    ] = Recipe.preset("xdi")

    numworkers: Annotated[
        int, Field(ge=1, le=256, description="Number of simultaneous conversions; Init applies it and keeps the queue")
    ] = Field(default_factory=lambda: min(usable_cores(), 4))
    executor: Annotated[
        Literal["process", "dask"],
        BeforeValidator(_without_threads),
        Field(description="Where conversions run: in processes on this host, or on a Dask cluster"),
    ] = "process"
    dask_scheduler: Annotated[
        str | None, Field(description="Address of the Dask scheduler, such as tcp://10.0.0.1:8786; for executor dask")
    ] = None
    time_limit: Annotated[float, Field(gt=0, allow_inf_nan=False, description="Time limit for one conversion, s")] = 60
    attempts: Annotated[
        int, Field(ge=1, le=100, description="Maximum attempts for a frame that crashes its worker")
    ] = 3

    readiness: Annotated[
        Literal["structure", "age"],
        Field(description="How complete files are recognised: by their structure, or by age alone"),
    ] = "structure"
    settle_time: Annotated[
        Seconds, Field(description="How long a file whose structure proves nothing must be unchanged, s")
    ] = 3
    settle_complete: Annotated[
        Seconds,
        Field(description="How long a complete file must be unchanged, s: 0 on local disks, 1 on network storage"),
    ] = 0
    min_size: Annotated[Bytes, Field(description="Minimum size of a complete file, bytes")] = 0
    timeout: Annotated[Seconds, Field(description="How long to wait for a complete file, s")] = 15
    run_timeout: Annotated[Seconds, Field(description="How long to wait for a frame of a bluesky run, s")] = 300
    on_timeout: Annotated[Literal["fail", "placeholder"], Field(description="What to do about a missing frame")] = (
        "fail"
    )
    placeholder_shape: Annotated[
        tuple[Side, Side],
        BeforeValidator(_as_shape),
        Field(description="Rows and columns of a placeholder, before rotation"),
    ] = (2048, 2048)
    lambda_modules: Annotated[
        int | None,
        Field(ge=1, le=99, description="How many modules, each a file of its own, a frame of the Lambda detector has"),
    ] = None
    sidecar_timeout: Annotated[Seconds, Field(description="How long to wait for QXRD's sidecar, s; 0: not at all")] = 2

    backlog_limit: Annotated[
        int, Field(ge=1, description="Length of the queue above which Submit and AddFiles are refused")
    ] = 100_000
    history_days: Annotated[
        float,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="How long reports and the keys of requests are kept, in days of a running server",
        ),
    ] = 60
    history_limit: Annotated[int, Field(ge=1, description="Maximum number of reports, whatever their age")] = 500_000
    free_space_warning: Annotated[
        Bytes, Field(description="Free space of a write root below which the server warns, bytes")
    ] = 20 * GIGABYTE
    free_space_limit: Annotated[
        Bytes, Field(description="Free space of a write root below which the server accepts no frames, bytes")
    ] = GIGABYTE

    watch: Annotated[Folders, Field(description="Folders whose new frames are converted automatically")] = ()
    watch_existing: Annotated[
        bool, Field(description="Whether to convert frames that exist when a folder is first watched")
    ] = False
    watch_recursive: Annotated[bool, Field(description="Whether to watch subfolders too")] = True
    watch_interval: Annotated[float, Field(gt=0, le=3600, description="Polling interval of watched folders, s")] = 1

    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], Field(description="Minimum level written to the log file")
    ] = "INFO"
    log_bytes: Annotated[int, Field(ge=10_000, description="Maximum size of one log file, bytes")] = 10_000_000
    log_files: Annotated[int, Field(ge=1, le=1000, description="Number of log files to keep")] = 100
    metrics_port: Annotated[int, Field(ge=0, le=65_535, description="TCP port of the Prometheus endpoint; 0: none")] = 0
    metrics_host: Annotated[str, Field(description="Address of the Prometheus endpoint")] = "127.0.0.1"

    @model_validator(mode="after")
    def _patient_enough(self) -> Self:
        settle = max(self.settle_time, self.settle_complete)
        for name, timeout in (("timeout", self.timeout), ("run_timeout", self.run_timeout)):
            if timeout <= settle:
                raise ValueError(f"{name} ({timeout:g} s) must be longer than the settle time ({settle:g} s)")
        return self

    @model_validator(mode="after")
    def _one_by_the_other(self) -> Self:
        if self.executor == "dask" and not self.dask_scheduler:
            raise ValueError("executor dask needs dask_scheduler, such as tcp://10.0.0.1:8786")
        if self.free_space_limit > self.free_space_warning:
            raise ValueError("free_space_limit must not exceed free_space_warning")
        return self

    @classmethod
    def merged(cls, *layers: dict[str, Any]) -> "Settings":
        """Return the settings from several layers, where later ones override earlier ones; raise `ValidationError`."""
        fields: dict[str, Any] = {}
        for layer in layers:
            fields.update(layer)
        return cls.model_validate(fields)

    @property
    def ledger_path(self) -> Path:
        """The path of the ledger."""
        return self.state_dir / LEDGER_NAME

    def roots(self) -> Roots:
        """The folders that may be read and written, resolved now; never the server's own."""
        return Roots.of(self.read_roots, self.write_roots, [self.state_dir])


def read_configuration(path: Path) -> dict[str, Any]:
    """Return the settings in a TOML file, without validation.

    Raises
    ------
    ConfigurationError
        if it cannot be read or is not TOML; with the line.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot read the file ({error.strerror}). Check the path of --config."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            rf"{path}: invalid TOML ({error}). Correct the line; write Windows paths in single quotes, 'Y:\'."
        ) from error


@dataclass(frozen=True, slots=True)
class Configuration:
    """The configuration of a server process: program defaults, overridden by a TOML file and by options."""

    defaults: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, properties: Mapping[str, Any], device: str) -> Settings:
        """Return the settings of a device, whose properties override everything else.

        Raises
        ------
        ConfigurationError
            if the file cannot be read.
        NoHomeError
            if no state_dir is given and the user has no home folder.
        pydantic.ValidationError
            if a setting is wrong or unknown.
        """
        from_file = read_configuration(self.file) if self.file else {}
        given = (dict(self.defaults), from_file, dict(self.options), dict(properties))
        own = {} if any("state_dir" in each for each in given) else {"state_dir": state_dir_of(device)}
        return Settings.merged(own, *given)


def state_dir_of(device: str) -> Path:
    """Return the default folder for ledger and logs of a device on this platform."""
    return state_folder() / device.lower().replace("/", "-")
