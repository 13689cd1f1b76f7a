"""Says which files `petif add --wait` is waiting for, and why."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tango_server.commands.output import complain
from tango_server.text import counted

if TYPE_CHECKING:
    from rich.console import Console

    from tango_server.messages import AwaitedFrame

_WORTH_SAYING = 2.0
"""How long a file has been awaited before it is named, s: most are complete by then."""
_NAMED = 5
_REMINDER = 30.0


class WaitNotices:
    """Names the first five files, each once, and then says every 30 s that files are still awaited."""

    def __init__(self, errors: "Console") -> None:
        self._errors = errors
        self._named: set[str] = set()
        self._said = 0.0

    def show(self, awaited: "Sequence[AwaitedFrame]") -> None:
        """Print what is new of the files that are not complete yet."""
        late = [frame for frame in awaited if frame.waited >= _WORTH_SAYING]
        new = [frame for frame in late if frame.source not in self._named][: _NAMED - len(self._named)]
        for frame in new:
            self._named.add(frame.source)
            self._say(f"waiting up to {frame.remaining:.0f} s more for {frame.source}: {frame.reason}")
        if late and not new and time.monotonic() - self._said > _REMINDER:
            longest = max(frame.remaining for frame in late)
            files = counted(len(late), "incomplete file")
            self._say(f"still waiting for {files}, up to {longest:.0f} s more: {late[0].source}, ...")

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        complain(self._errors, text, style="yellow")
