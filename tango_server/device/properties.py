"""One Tango device property for every setting, by the same name.

All are texts, as the database keeps them; `Settings` reads and checks them, so that a wrong one is told in the
device's Status instead of ending the server's start.
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
        """Return the settings that properties give; an empty property counts as not set."""
        values = {name: getattr(self, name) for name in Settings.model_fields}
        return {
            name: value if isinstance(value, str) else list(value)  # PyTango's lists are vectors of its own
            for name, value in values.items()
            if value is not None and len(value)
        }
