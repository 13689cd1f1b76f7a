"""The newest pair of frames, read by one thread for all pages: a file system that hangs must not hold a page up."""

import logging
import threading
import time
from pathlib import Path

from tango_server.messages import FrameReport
from tango_server.monitor.images import Pair, Shot, read_pair

_log = logging.getLogger(__name__)

_PAUSE = 2.0
"""Between two readings, s: a frame takes 33 MB to read, and nobody sees more in fifteen a second."""


class Pictures:
    """Reads frames when pages ask for them, not before and not more often than people can look."""

    def __init__(self, pause: float = _PAUSE) -> None:
        self._pause = pause
        self._one_at_a_time = threading.Lock()
        self._busy = self._closed = False
        self._due = 0.0
        self._pair: Pair | None = None

    @property
    def pair(self) -> Pair | None:
        """The pair that was read last."""
        return self._pair

    def want(self, report: FrameReport) -> None:
        """Have the frame of a report read, soon, if it is another one than the last; returns at once."""
        with self._one_at_a_time:
            shown = self._pair is not None and self._pair.job_id == report.job_id
            if self._closed or self._busy or shown or time.monotonic() < self._due:
                return
            self._busy = True
        # Not one of a pool: the interpreter waits for those when it ends, and a file system may hang for ever.
        threading.Thread(target=self._read, args=(report,), name="petif-pictures", daemon=True).start()

    def close(self) -> None:
        """Read nothing any more; a reading that goes on is not waited for."""
        self._closed = True

    def _read(self, report: FrameReport) -> None:
        try:
            self._pair = read_pair(report)
        except Exception:  # noqa: BLE001 - a file that can't be shown must not end the showing
            _log.exception("%s could not be shown", report.source)
            name = Path(report.source).name
            why = Shot(name, text="It can't be shown; the log of the monitor says why.")
            self._pair = Pair(report.job_id, why, why)
        finally:
            self._due = time.monotonic() + self._pause
            self._busy = False
