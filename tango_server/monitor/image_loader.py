"""The newest pair of frames, read by one thread for all pages: a file system that hangs must not block a page."""

import logging
import threading
import time
from pathlib import Path

from tango_server.messages import FrameReport
from tango_server.monitor.images import Pair, Shot, read_pair

_log = logging.getLogger(__name__)

_PAUSE = 2.0
"""Between two readings, s: a pair of frames is 33 MB to read, and a higher rate shows nothing more."""


class Pictures:
    """Reads frames when a page requests them, at a limited rate."""

    def __init__(self, pause: float = _PAUSE) -> None:
        self._pause = pause
        self._one_at_a_time = threading.Lock()
        self._busy = self._closed = False
        self._due = 0.0
        self._pair: Pair | None = None

    @property
    def pair(self) -> Pair | None:
        """The last pair that was read."""
        return self._pair

    def want(self, report: FrameReport) -> None:
        """Request the frame of a report, unless it is already shown; returns at once."""
        with self._one_at_a_time:
            shown = self._pair is not None and self._pair.job_id == report.job_id
            if self._closed or self._busy or shown or time.monotonic() < self._due:
                return
            self._busy = True
        # Not from a pool: the interpreter waits for pool threads at exit, and a file system may hang for ever.
        threading.Thread(target=self._read, args=(report,), name="petif-pictures", daemon=True).start()

    def close(self) -> None:
        """Stop reading; a running read is not waited for."""
        self._closed = True

    def _read(self, report: FrameReport) -> None:
        try:
            self._pair = read_pair(report)
        except Exception:  # noqa: BLE001 - an unreadable file must not stop the thread
            _log.exception("%s: cannot show the image", report.source)
            name = Path(report.source).name
            why = Shot(name, text="Cannot show this image. Check the log of the monitor.")
            self._pair = Pair(report.job_id, why, why)
        finally:
            self._due = time.monotonic() + self._pause
            self._busy = False
