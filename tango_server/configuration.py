"""Where the settings of a server come from, read anew by every Init."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tango_server.home import state_folder
from tango_server.settings import Settings, read_configuration


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a server is started with: defaults of the program, a TOML file over them, options over the file."""

    defaults: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, properties: Mapping[str, Any], device: str) -> Settings:
        """Return the settings of a device, with its properties over all.

        Raises
        ------
        ConfigurationError
            if the file can't be read.
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
    """Return where ledger and logs of a device go unless told otherwise, by the custom of this platform."""
    return state_folder() / device.lower().replace("/", "-")
