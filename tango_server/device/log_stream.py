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
        self._writers = (
            (logging.CRITICAL, logger.fatal),
            (logging.ERROR, logger.error),
            (logging.WARNING, logger.warn),
            (logging.INFO, logger.info),
            (logging.NOTSET, logger.debug),
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one line on to the logging targets of the device, from whatever thread."""
        write = next(write for lowest, write in self._writers if record.levelno >= lowest)
        harmless = self.format(record).replace("]]>", "]]\\>")  # Tango's log files are XML, and it escapes nothing
        with tango.EnsureOmniThread():  # a target may be another device
            write(harmless)
