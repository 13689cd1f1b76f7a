"""Ctrl-C as a request to stop, checked between two frames."""

import signal
from types import FrameType
from typing import Any, Self


class InterruptHandler:
    """Within its context the first Ctrl-C only sets `pressed`; each further one interrupts as always.

    A `KeyboardInterrupt` can come between any two statements, also after a frame was given to a worker and before that
    was recorded: nothing would wait for that frame, and its temporary file would be left behind.
    """

    def __init__(self) -> None:
        self.pressed = False
        self._before: Any = None

    def __enter__(self) -> Self:
        self._before = signal.getsignal(signal.SIGINT)
        if self._before is not signal.SIG_IGN:  # background jobs of a script ignore Ctrl-C
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.pressed = True
        signal.signal(signal.SIGINT, self._before)
