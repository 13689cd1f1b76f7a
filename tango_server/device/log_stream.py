"""Messages of this package on the log stream of a Tango device, where LogViewer and Astor look for them."""

import logging

import tango
from tango.server import Device


class TangoStream:
    """The log stream of one device; what it takes is what `set_logging_level` of the device says, at any time.

    Characters beyond ASCII are escaped: Tango's log consumers would garble them.
    """

    def __init__(self, device: Device) -> None:
        logger = device.get_logger()
        self._levels = (
            (logging.CRITICAL, logger.is_fatal_enabled, logger.fatal),
            (logging.ERROR, logger.is_error_enabled, logger.error),
            (logging.WARNING, logger.is_warn_enabled, logger.warn),
            (logging.INFO, logger.is_info_enabled, logger.info),
            (logging.NOTSET, logger.is_debug_enabled, logger.debug),
        )

    def takes(self, level: int) -> bool:
        """Whether the device's logging level lets messages of this level of `logging` through."""
        return next(bool(enabled()) for lowest, enabled, _ in self._levels if level >= lowest)

    def write(self, level: int, text: str) -> None:
        """Pass one line on to the logging targets of the device, from whatever thread."""
        harmless = text.replace("]]>", "]]\\>")  # Tango's log files are XML, and it escapes nothing
        with tango.EnsureOmniThread():  # a target may be another device
            next(write for lowest, _, write in self._levels if level >= lowest)(harmless)
