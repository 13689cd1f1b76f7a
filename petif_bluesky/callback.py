"""Run documents in, requests out: into the spool at once, to the server in the background."""

import hashlib
import logging
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from petif_bluesky.delivery.document_errors import DocumentErrorLog
from petif_bluesky.delivery.run_book import RunBook
from petif_bluesky.delivery.sender import Sender
from petif_bluesky.documents.frame import Frame
from petif_bluesky.documents.rotation_scans import RotationScans
from petif_bluesky.documents.selection import FrameSelection
from petif_bluesky.frames import FrameFinder
from petif_bluesky.metadata import FrameMetadata, MetadataSelection
from petif_bluesky.spool import Spool, SpooledRequest
from tango_server.client.client import Client
from tango_server.home import state_folder

_log = logging.getLogger(__name__)

_KEPT_RUNS = 100
_OF_A_RUN = {"descriptor", "resource", "stream_resource", "stop"}
_OF_A_DESCRIPTOR = {"event", "event_page", "stream_datum"}


class Submitting(Protocol):
    """What is needed of a converter: a `PETifConverter`, or a `RemoteSession` where there is none."""

    client: Client
    runs: RunBook


def default_spool_path(address: str) -> Path:
    """Return where the requests for the server at `address` wait, by default.

    Each host has a file of its own: homes may lie on a network file system, where SQLite must not be shared.
    """
    digest = hashlib.sha256(f"{platform.node()} {address}".encode()).hexdigest()[:12]
    return state_folder() / f"spool-{digest}.sqlite"


class UnknownRecipeError(LookupError):
    """The start document of a run was not seen, and the recipe is in it."""


class ConversionCallback:
    """Enqueues every frame that a run's detectors write, as its documents come.

    `RE.subscribe(ConversionCallback(converter))`. It never raises into a plan and never waits for the server: a call
    costs one insert into an SQLite file. The recipe is the run's own (`start.conversion.recipe`), without one the
    server's.

    Parameters
    ----------
    converter: the device that stands for the server
    spool: the file in which requests wait for the server, by default one per server in the user's state folder
    frames: which frames are taken, by default every TIFF image of a run once
    metadata: which keys of the documents travel with each frame

    Raises
    ------
    SpoolError
        if the spool can't be opened: better now than in a run.

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
        self._finder = FrameFinder(frames)
        self._facts = FrameMetadata(metadata)
        self._scans = RotationScans()
        self._troubles = DocumentErrorLog()
        self._recipes: dict[str, Any] = {}
        self._sender = Sender(self._spool, converter.client, set_aside=self._set_aside)

    @property
    def waiting(self) -> int:
        """How many frames wait in the spool for the server."""
        return self._spool.frames

    def __call__(self, name: str, document: Mapping[str, Any]) -> None:
        """Take one document in."""
        run_uid = ""
        try:
            run_uid = self._run_of(name, document)
            self._take(name, document)
        except Exception as error:  # noqa: BLE001 - the boundary to the RunEngine: our trouble must not end a plan
            self._troubles.tell(run_uid, name, error)
        if name == "stop":
            self._troubles.end(run_uid)

    def close(self, timeout: float = 5.0) -> None:
        """End the sending; what the server does not have yet stays in the spool for the next session."""
        self._sender.close(timeout)
        self._spool.close()

    def _run_of(self, name: str, document: Mapping[str, Any]) -> str:
        if name == "start":
            return str(document["uid"])
        if name in _OF_A_RUN:
            return str(document.get("run_start", ""))
        if name in _OF_A_DESCRIPTOR:
            return self._facts.run_of(document.get("descriptor", "")) or ""
        return ""

    def _take(self, name: str, document: Mapping[str, Any]) -> None:
        """Do all that can be done with a document; raise the first error then."""
        errors: list[Exception] = []

        def attempt(step: Callable[[], None]) -> None:
            try:
                step()
            except Exception as error:  # noqa: BLE001 - one step's trouble must not cost the others; it is raised below
                errors.append(error)

        if name == "start":
            attempt(lambda: self._begin(document))
        if name != "stop":  # which makes the facts of the run forgotten, and may bring its last frames
            attempt(lambda: self._facts.feed(name, document))
            attempt(lambda: self._scans.feed(name, document))
        attempt(lambda: self._enqueue(self._scans.released(self._run_of(name, document))))
        attempt(lambda: self._enqueue(self._taken(self._finder.feed(name, document))))
        if name == "stop":
            attempt(lambda: self._enqueue(self._scans.end(document["run_start"])))
            attempt(lambda: self._scans.forget(document["run_start"]))
            attempt(lambda: self._facts.feed(name, document))
            attempt(lambda: self._end(document["run_start"]))
        for note in self._finder.take_notes():
            _log.warning("%s", note)
        if errors:
            raise errors[0]

    def _begin(self, start: Mapping[str, Any]) -> None:
        run_uid = start["uid"]
        self._troubles.begin()
        conversion = start.get("conversion") or {}
        self._recipes[run_uid] = conversion.get("recipe") if isinstance(conversion, Mapping) else None
        self._scans.begin(run_uid, self._recipes[run_uid])
        while len(self._recipes) > _KEPT_RUNS:  # of runs that never stopped
            left = next(iter(self._recipes))
            self._recipes.pop(left)
            self._scans.forget(left)
        self._book.announce(run_uid)
        self._spool.announce(run_uid)
        self._sender.wake()
        if not isinstance(conversion, Mapping):
            raise TypeError(
                f"conversion in the start document: found {conversion!r}; expected a dict with a recipe. "
                "The server's own recipe holds. Name other metadata otherwise."
            )

    def _taken(self, frames: Sequence[Frame]) -> list[Frame]:
        """Return those frames that need not wait for more readings."""
        return [whole for frame in frames if (whole := self._scans.take(frame, self._exposure(frame))) is not None]

    def _exposure(self, frame: Frame) -> float:
        exposure = self._metadata(frame).get("exposure_time") if self._scans.concern(frame) else None
        return exposure if isinstance(exposure, float) else 0.0

    def _enqueue(self, frames: Sequence[Frame]) -> None:
        if not frames:
            return
        requests = [self._request(frame) for frame in frames if frame.run_uid in self._recipes]
        if requests:
            self._spool.put_all(requests)
            for request in requests:
                self._book.add(request["run_uid"], request["key"])
            self._sender.wake()
        for frame in frames:
            if frame.run_uid not in self._recipes:
                raise UnknownRecipeError(
                    f"{frame.path}: found a frame of run {frame.run_uid}, whose start document was not seen; expected "
                    "that first, because the recipe is in it. Subscribe before the run begins."
                )

    def _end(self, run_uid: str) -> None:
        self._recipes.pop(run_uid, None)
        self._book.close(run_uid)

    def _request(self, frame: Frame) -> dict[str, Any]:
        return {
            "source": frame.path,
            "recipe": self._recipes[frame.run_uid],
            "key": f"{frame.run_uid}/{frame.data_key}/{frame.path}",
            "run_uid": frame.run_uid,
            "stream": frame.stream,
            "seq_num": frame.seq_num,
            "metadata": self._metadata(frame),
        }

    def _metadata(self, frame: Frame) -> dict[str, Any]:
        try:
            metadata = self._facts.of(frame)
            angles = self._scans.angles(frame, metadata.get("exposure_time", 0.0))
        except Exception as error:  # noqa: BLE001 - a frame without its metadata is better than none
            self._troubles.tell(frame.run_uid, "event", error)
            return {}
        return {**metadata, **angles}

    def _set_aside(self, entry: SpooledRequest) -> None:
        """Called by the sender's thread."""
        if entry.request is not None:
            self._book.set_aside(entry.run_uid, entry.key)
