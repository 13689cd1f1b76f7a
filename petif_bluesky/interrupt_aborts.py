"""Ctrl-C in programs that run plans of their own: the run is aborted, so that it has a stop document."""

import signal
import threading
from types import FrameType
from typing import Any, Self

from bluesky import RunEngine


class InterruptAborts:
    """While the RunEngine is busy, the first Ctrl-C pauses it so that it can be aborted; the second ends Python.

    Use as `RunEngine(context_managers=[InterruptAborts])`, and call `abort` after `RunEngineInterrupted`.
    """

    def __init__(self, run_engine: RunEngine) -> None:
        self._run_engine = run_engine
        self._before: Any = None

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Thread(target=self._run_engine.request_pause, args=(False,), daemon=True).start()
