"""Run documents in, requests out: into the spool at once, to the server in the background."""

import hashlib
import logging
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs

from petif_bluesky.converter import PETifConverter
from petif_bluesky.frames import Frame, FrameFinder
from petif_bluesky.sender import Sender
from petif_bluesky.spool import Spool

_log = logging.getLogger(__name__)


def default_spool_path(address: str) -> Path:
    """Return where the requests for the server at `address` wait, by default.

    Each host has a file of its own: homes may lie on a network file system, where SQLite must not be shared.
    """
    digest = hashlib.sha256(f"{platform.node()} {address}".encode()).hexdigest()[:12]
    return platformdirs.user_state_path("petif-bluesky") / f"spool-{digest}.sqlite"


class ConversionCallback:
    """Enqueues every frame that a run's detectors write, as its events come.

    `RE.subscribe(ConversionCallback(converter))`. It never raises into a plan and never waits for the server: a call
    costs one insert into an SQLite file. The recipe is the run's own (`start.conversion.recipe`), without one the
    server's.

    Parameters
    ----------
    converter: the device that stands for the server
    spool: the file in which requests wait for the server, by default one per server in the user's state folder

    """

    def __init__(self, converter: PETifConverter, *, spool: str | Path | None = None) -> None:
        self._book = converter.runs
        self._spool = Spool(Path(spool) if spool else default_spool_path(converter.link.address))
        self._sender = Sender(self._spool, converter.link)
        self._finder = FrameFinder()
        self._recipes: dict[str, Any] = {}

    def __call__(self, name: str, document: Mapping[str, Any]) -> None:
        """Take one document in."""
        try:
            self._take(name, document)
        except Exception:  # noqa: BLE001 - the boundary to the RunEngine: whatever is wrong with us must not end a plan
            _log.exception("a %r document could not be taken in; its frames will not be converted", name)

    def close(self, timeout: float = 5.0) -> None:
        """End the sending; what the server does not have yet stays in the spool for the next session."""
        self._sender.close(timeout)
        self._spool.close()

    def _take(self, name: str, document: Mapping[str, Any]) -> None:
        if name == "start":
            self._recipes[document["uid"]] = document.get("conversion", {}).get("recipe")
            self._book.announce(document["uid"])
            self._spool.announce(document["uid"])
            self._sender.wake()
        frames = self._finder.feed(name, document)
        for frame in frames:
            request = self._request(frame)
            self._spool.put(request)
            self._book.add(frame.run_uid, request["key"])
        if frames:
            self._sender.wake()
        if name == "stop":
            self._recipes.pop(document["run_start"], None)
            self._book.close(document["run_start"])

    def _request(self, frame: Frame) -> dict[str, Any]:
        return {
            "source": frame.path,
            "recipe": self._recipes.get(frame.run_uid),
            "key": f"{frame.run_uid}/{frame.data_key}/{frame.path}",
            "run_uid": frame.run_uid,
            "stream": frame.stream,
            "seq_num": frame.seq_num,
        }
