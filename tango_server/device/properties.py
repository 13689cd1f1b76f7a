"""One Tango device property for every setting, by the same name.

All are strings, as in the database; `Settings` parses and checks them, so that an invalid one is reported in the
device's Status and does not stop the server from starting.
"""

from typing import Any

from tango.server import Device, DeviceMeta, device_property

from tango_server.device.property_lines import is_list
from tango_server.settings import Settings

_PROPERTIES = {
    name: device_property(dtype=[str] if is_list(name) else str, doc=field.description or "")
    for name, field in Settings.model_fields.items()
}
_DeviceWithProperties: Any = DeviceMeta("_DeviceWithProperties", (Device,), _PROPERTIES)


class Configured(_DeviceWithProperties):
    """A device with a property for every setting."""

    def set_properties(self) -> dict[str, Any]:
        """Return the settings from the properties; an empty property counts as not set."""
        values = {name: getattr(self, name) for name in Settings.model_fields}
        return {
            name: value if isinstance(value, str) else list(value)  # PyTango returns its own vector type
            for name, value in values.items()
            if value is not None and len(value)
        }
