"""Ctrl-C as a wish that is looked at between two frames."""

import signal
from types import FrameType
from typing import Any, Self


class InterruptHandler:
    """Within its context the first Ctrl-C only sets `pressed`; each further one interrupts as always.

    A `KeyboardInterrupt` may come between any two steps, also between handing a frame to a worker and noting that it
    runs there: nobody would wait for that frame, and its temporary file would stay.
    """

    def __init__(self) -> None:
        self.pressed = False
        self._before: Any = None

    def __enter__(self) -> Self:
        self._before = signal.getsignal(signal.SIGINT)
        if self._before is not signal.SIG_IGN:  # as for jobs in the background of a script: Ctrl-C is not for them
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.pressed = True
        signal.signal(signal.SIGINT, self._before)
