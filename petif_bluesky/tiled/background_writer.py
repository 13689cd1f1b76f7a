"""Write runs to a catalogue in a thread, so that the RunEngine does not wait for the network."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

from bluesky.callbacks.buffer import BufferingWrapper

_SMALL = 500  # documents
_LONGEST_WAIT = 3.0  # s
_KEPT_RUNS = 100

Writer = Callable[[str, Mapping[str, Any]], Any]


class BackgroundWriter:
    """Passes documents to a writer in a thread.

    The stop document of a run of at most 500 documents is waited for, up to 3 s, so that such runs are usually in the
    catalogue when the RunEngine returns. Larger runs follow: registering a thousand files takes Tiled seconds.

    Parameters
    ----------
    writer: a subscriber; must keep what it cannot write, as `TiledWriter` does with a `backup_directory`

    """

    def __init__(self, writer: Writer) -> None:
        self.subscriber = writer
        self._buffer = BufferingWrapper(self._write)
        self._documents = 0  # since the last start
        self._written: dict[str, threading.Event] = {}
        """By run that has not stopped yet."""

    def __call__(self, name: str, document: Mapping[str, Any]) -> None:
        """Take one document."""
        if name == "start":
            self._written[document["uid"]] = threading.Event()
            self._documents = 0
            if len(self._written) > _KEPT_RUNS:  # runs that never stopped
                del self._written[next(iter(self._written))]
        self._documents += 1
        self._buffer(name, document)
        if name == "stop" and (written := self._written.get(document["run_start"])) is not None:
            if self._documents <= _SMALL:
                written.wait(_LONGEST_WAIT)
            del self._written[document["run_start"]]

    def close(self) -> None:
        """Write what was taken so far, and end the thread."""
        self._buffer.shutdown()

    def _write(self, name: str, document: Mapping[str, Any]) -> None:
        """Runs in the thread."""
        written = self._written.get(document["run_start"]) if name == "stop" else None
        self.subscriber(name, document)
        if written is not None:
            written.set()
