"""Log records as text: one JSON object a line for programs, one line for people."""

import logging
import time

from pythonjsonlogger.json import JsonFormatter


def json_formatter() -> logging.Formatter:
    """Return the format of the log file: time (UTC, ms), level, logger, message, every `extra`, traceback."""
    formatter = JsonFormatter(
        "{asctime}{levelname}{name}{message}",
        style="{",
        rename_fields={"asctime": "time", "levelname": "level", "name": "logger", "exc_info": "traceback"},
    )
    formatter.converter = time.gmtime
    formatter.default_time_format = "%Y-%m-%dT%H:%M:%S"
    formatter.default_msec_format = "%s.%03dZ"
    return formatter


def one_line(text: str) -> str:
    r"""Return the text in printable ASCII: what would break a line, steer a terminal or be garbled is escaped.

    >>> one_line("a\nb \x1b[31m \u03b2")
    'a\\nb \\x1b[31m \\u03b2'
    """
    if text.isascii() and text.isprintable():
        return text
    shown = (char if char.isprintable() else repr(char)[1:-1] for char in text)
    return "".join(shown).encode("ascii", "backslashreplace").decode("ascii")


def for_people(record: logging.LogRecord) -> str:
    """Return a record's message on one line, with the id of its job."""
    job_id = getattr(record, "job_id", None)
    message = record.getMessage()
    named = job_id is None or str(job_id) in message
    return one_line(message if named else f"{message} (job {job_id})")


class ConsoleFormatter(logging.Formatter):
    """The format of standard error: nothing in a message or an error can pass for another line of the log."""

    def __init__(self) -> None:
        super().__init__("{asctime} {levelname} {name}: {message}", style="{")

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, and an indented traceback if there is one."""
        record.message = for_people(record)
        record.asctime = self.formatTime(record)
        line = self.formatMessage(record)
        if not record.exc_info:
            return line
        trace = self.formatException(record.exc_info).split("\n")
        return "\n".join([line, *(f"  {one_line(part)}" for part in trace)])
