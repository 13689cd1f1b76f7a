"""Log records as text: one JSON object per line for programs, one line of ASCII for people."""

import copy
import logging
import time

from pythonjsonlogger.json import JsonFormatter

from tango_server.text import printable


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
    r"""Return the text in printable ASCII: line breaks, control characters and non-ASCII are escaped.

    >>> one_line("a\nb \x1b[31m \u03b2")
    'a\\nb \\x1b[31m \\u03b2'
    """
    return printable(text, len(text)).encode("ascii", "backslashreplace").decode("ascii")


class LineFormatter(logging.Formatter):
    """For standard error and Tango's log stream: message, job id, last line of the traceback, on one line.

    No message or error can fake another line of the log.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return one line of ASCII."""
        line = record.getMessage()
        job_id = getattr(record, "job_id", None)
        if job_id is not None and str(job_id) not in line:
            line += f" (job {job_id})"
        trace = record.exc_text or (self.formatException(record.exc_info) if record.exc_info else "")
        if trace:
            line += ": " + trace.rstrip().rpartition("\n")[2]
        record = copy.copy(record)
        record.msg, record.args, record.exc_info, record.exc_text = one_line(line), None, None, None
        return super().format(record)
