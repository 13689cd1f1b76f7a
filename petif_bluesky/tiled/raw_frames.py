"""Find the raw frames of a catalogued run, to be submitted to the server again."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from petif_bluesky.documents.errors import DocumentError, FramesNotFoundError
from petif_bluesky.documents.frame import Frame
from petif_bluesky.documents.selection import FrameSelection
from petif_bluesky.frames import FrameRouter
from petif_bluesky.tiled.run_documents import documents_of

_log = logging.getLogger(__name__)

_BASELINE = "baseline"


def find_run(catalogue: Any, uid: str) -> Any:
    """Return the client of a run; raise `FramesNotFoundError` if the catalogue does not have it."""
    try:
        return catalogue[uid]
    except KeyError as error:
        raise FramesNotFoundError(f"run {uid}: not in the catalogue. Check the uid and the catalogue.") from error


def frames_of_run(run: Any, selection: FrameSelection | None = None) -> list[Frame]:
    """Return the frames of a catalogued run.

    Raises
    ------
    FramesNotFoundError
        if it has none, or one of them cannot be found.

    """
    selection = selection or FrameSelection()

    def takes_stream(name: str) -> bool:
        return name == _BASELINE or selection.takes_stream(name)

    return _frames_in(documents_of(run, takes_stream), selection)


def _frames_in(documents: Iterable[tuple[str, Mapping[str, Any]]], selection: FrameSelection) -> list[Frame]:
    uid, found, notes = "", list[Frame](), list[str]()
    router = FrameRouter(found.extend, note=notes.append, frames=selection)
    try:
        for name, document in documents:
            if name == "start":
                uid = document["uid"]
            router(name, document)
    except (DocumentError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise FramesNotFoundError(
            f"run {uid}: its documents do not follow the event model: {type(error).__name__}: {error}. "
            "Convert its files with convert_files."
        ) from error
    if not found:
        why = "; ".join(notes) or "no stream has TIFF images or names of TIFF files"
        raise FramesNotFoundError(
            f"run {uid}: no frames to convert: {why}. Choose a run of a detector that writes TIFF files."
        )
    for note in notes:
        _log.warning("%s", note)
    return found
