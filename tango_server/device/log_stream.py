"""Messages of this package on the log stream of a Tango device, where LogViewer and Astor look for them."""

import logging

import tango
from tango.server import Device

from tango_server.observability.formatters import LineFormatter


class TangoStream(logging.Handler):
    """The log stream of one device; what it takes is what `set_logging_level` of the device says, at any time.

    Characters beyond ASCII are escaped: Tango's log consumers would garble them.
    """

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.setFormatter(LineFormatter())
        logger = device.get_logger()
        self._levels = (
            (logging.CRITICAL, logger.is_fatal_enabled, logger.fatal),
            (logging.ERROR, logger.is_error_enabled, logger.error),
            (logging.WARNING, logger.is_warn_enabled, logger.warn),
            (logging.INFO, logger.is_info_enabled, logger.info),
            (logging.NOTSET, logger.is_debug_enabled, logger.debug),
        )

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the device's logging level lets the record through."""
        enabled = next(enabled for lowest, enabled, _ in self._levels if record.levelno >= lowest)
        return bool(enabled()) and bool(super().filter(record))

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one line on to the logging targets of the device, from whatever thread."""
        write = next(write for lowest, _, write in self._levels if record.levelno >= lowest)
        harmless = self.format(record).replace("]]>", "]]\\>")  # Tango's log files are XML, and it escapes nothing
        with tango.EnsureOmniThread():  # a target may be another device
            write(harmless)
