"""Messages of this package on the log stream of a Tango device, for LogViewer and Astor."""

import logging

import tango
from tango.server import Device

from tango_server.observability.formatters import LineFormatter


class TangoStream(logging.Handler):
    """The log stream of one device, at the level that `set_logging_level` of the device has set.

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
        """Whether the device's logging level includes the record."""
        enabled = next(enabled for lowest, enabled, _ in self._levels if record.levelno >= lowest)
        return bool(enabled()) and bool(super().filter(record))

    def emit(self, record: logging.LogRecord) -> None:
        """Send one line to the logging targets of the device; any thread may call."""
        write = next(write for lowest, _, write in self._levels if record.levelno >= lowest)
        harmless = self.format(record).replace("]]>", "]]\\>")  # Tango's log files are XML, without escaping
        with tango.EnsureOmniThread():  # a target may be another device
            write(harmless)
