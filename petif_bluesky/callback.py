"""The callback that turns run documents into conversion requests: spooled at once, sent in the background."""

import hashlib
import logging
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from petif_bluesky.delivery.document_errors import DocumentErrorLog
from petif_bluesky.delivery.run_book import RunBook
from petif_bluesky.delivery.sender import Sender
from petif_bluesky.documents.frame import Frame
from petif_bluesky.documents.selection import FrameSelection
from petif_bluesky.frames import FrameRouter
from petif_bluesky.metadata import MetadataSelection
from petif_bluesky.spool import Spool, SpooledRequest
from tango_server.client.client import Client
from tango_server.home import state_folder

_log = logging.getLogger(__name__)


class Submitting(Protocol):
    """What the callback needs from a converter: a `PETifConverter`, or a `RemoteSession` outside a bluesky session."""

    client: Client
    runs: RunBook


def default_spool_path(address: str) -> Path:
    """Return the default spool file for the server at `address`.

    Each host has its own file: home folders may be on a network file system, where SQLite files must not be shared.
    """
    digest = hashlib.sha256(f"{platform.node()} {address}".encode()).hexdigest()[:12]
    return state_folder() / f"spool-{digest}.sqlite"


class ConversionCallback:
    """Submits every frame that a run's detectors write, as the documents arrive.

    Use it as `RE.subscribe(ConversionCallback(converter))`. It never raises into a plan and never waits for the server:
    each call costs one insert into an SQLite file. The recipe is the one in the start document
    (`start.conversion.recipe`), or the server's if the run has none.

    Parameters
    ----------
    converter: the device that represents the server
    spool: the file that holds requests until the server accepts them; by default one per server in the user's state
        folder
    frames: which frames to convert, by default every TIFF image of a run once
    metadata: which document keys to send with each frame

    Raises
    ------
    SpoolError
        if the spool cannot be opened, so that this is noticed before a run starts.

    """

    def __init__(
        self,
        converter: Submitting,
        *,
        spool: str | Path | None = None,
        frames: FrameSelection | None = None,
        metadata: MetadataSelection | None = None,
    ) -> None:
        self._book = converter.runs
        self._spool = Spool(Path(spool) if spool else default_spool_path(converter.client.address))
        self._book.spools.add(self._spool)
        self._router = FrameRouter(self._enqueue, note=_warn, frames=frames, metadata=metadata)
        self._errors = DocumentErrorLog()
        self._sender = Sender(self._spool, converter.client, set_aside=self._set_aside)

    @property
    def waiting(self) -> int:
        """Number of frames in the spool that the server has not accepted yet."""
        return self._spool.frames

    def __call__(self, name: str, document: Mapping[str, Any]) -> None:
        """Process one document."""
        run_uid = ""
        try:
            run_uid = self._router.run_of(name, document)
            self._follow(name, document)
        except Exception as error:  # noqa: BLE001 - boundary to the RunEngine: an error here must not end a plan
            self._errors.record(run_uid, name, error)
        if name == "stop" and run_uid:
            self._book.close(run_uid)
            self._errors.end(run_uid)

    def close(self, timeout: float = 5.0) -> None:
        """Stop sending; requests that the server has not accepted stay in the spool for the next session."""
        self._sender.close(timeout)
        self._book.spools.discard(self._spool)
        self._spool.close()

    def _follow(self, name: str, document: Mapping[str, Any]) -> None:
        try:
            if name == "start":
                self._announce(document["uid"])
        finally:
            self._router(name, document)

    def _announce(self, run_uid: str) -> None:
        self._errors.begin()
        self._book.announce(run_uid)
        self._spool.announce(run_uid)
        self._sender.wake()

    def _enqueue(self, frames: list[Frame]) -> None:
        requests = [frame.request() for frame in frames]
        self._spool.put_all(requests)
        for request in requests:
            self._book.add(request["run_uid"], request["key"])
        self._sender.wake()

    def _set_aside(self, entry: SpooledRequest) -> None:
        """Runs in the sender's thread."""
        if entry.request is not None:
            self._book.set_aside(entry.run_uid, entry.key)


def _warn(text: str) -> None:
    _log.warning("%s", text)
