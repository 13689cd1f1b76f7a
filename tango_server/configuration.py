"""Where the settings of a server come from, read anew by every Init."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tango_server.settings import Settings, read_configuration


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a server is started with: defaults of the program, a TOML file over them, options over the file."""

    defaults: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, properties: Mapping[str, Any]) -> Settings:
        """Return the settings, with the device's properties over all.

        Raises
        ------
        ConfigurationError
            if the file can't be read.
        pydantic.ValidationError
            if a setting is wrong or unknown.
        """
        from_file = read_configuration(self.file) if self.file else {}
        return Settings.merged(dict(self.defaults), from_file, dict(self.options), dict(properties))
