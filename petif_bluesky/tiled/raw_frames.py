"""Find the raw frames of a catalogued run, to be submitted to the server again."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from petif_bluesky.documents.dark_book import DarkBook
from petif_bluesky.documents.darks import Dark
from petif_bluesky.documents.errors import DocumentError, FramesNotFoundError
from petif_bluesky.documents.frame import Frame
from petif_bluesky.documents.selection import FrameSelection
from petif_bluesky.frames import FrameRouter, recipe_in
from petif_bluesky.tiled.run_documents import documents_of
from tango_server.recipe import Recipe

_log = logging.getLogger(__name__)

_BASELINE = "baseline"


def find_run(catalogue: Any, uid: str) -> Any:
    """Return the client of a run; raise `FramesNotFoundError` if the catalogue does not have it."""
    try:
        return catalogue[uid]
    except KeyError as error:
        raise FramesNotFoundError(f"run {uid}: not in the catalogue. Check the uid and the catalogue.") from error


def frames_of_run(
    run: Any, selection: FrameSelection | None = None, *, recipe: Recipe | None = None, catalogue: Any = None
) -> list[Frame]:
    """Return the frames of a catalogued run, to be converted with a recipe.

    If the recipe wants the dark of the run, the frames have it: the last one before the frame, else the one that the
    start document names, else the first one after the frame.

    Parameters
    ----------
    run: its Tiled client
    selection: which images are frames, and which are dark
    recipe: the recipe, by default that of the run
    catalogue: has the run of darks that the start document names

    Raises
    ------
    FramesNotFoundError
        if the run has no frames, or one of them cannot be found.

    """
    wanted = None if recipe is None else recipe.model_dump(mode="json")
    found = _found_in(run, selection or FrameSelection(), recipe_in if recipe is None else lambda _start: wanted)
    if not found.frames:
        why = "; ".join(found.notes) or "no stream has images in files or names of image files"
        raise FramesNotFoundError(
            f"run {found.uid}: no frames to convert: {why}. Choose a run of a detector that writes TIFF, CBF, EDF or "
            "HDF5 files."
        )
    for note in found.notes:
        _log.warning("%s", note)
    lights = [frame.light for frame in found.frames if frame.light is not None]
    unknown = {uid: _add_dark_run(found.darks, catalogue, uid) for uid in {light.dark_run for light in lights} - {""}}
    return [
        frame
        if frame.light is None
        else replace(frame, dark=found.darks.dark_afterwards(frame.light, unknown.get(frame.light.dark_run, "")))
        for frame in found.frames
    ]


def darks_of_run(run: Any, selection: FrameSelection | None = None) -> list[Dark]:
    """Return the darks of a catalogued run of darks, whether or not its start document marks it as one.

    Raises
    ------
    FramesNotFoundError
        if it has none.

    """
    found = _found_in(run, selection or FrameSelection(), lambda _start: None, dark_run=True)
    darks = [replace(dark, order=0) for dark in found.darks if dark.paths]
    if not darks:
        why = "; ".join(found.notes) or found.darks.unfit_of(found.uid) or "it has no images in files of their own"
        raise FramesNotFoundError(f"run {found.uid}: {why}")
    return darks


@dataclass(slots=True)
class _Found:
    uid: str = ""
    frames: list[Frame] = field(default_factory=list)
    darks: DarkBook = field(default_factory=lambda: DarkBook(most=None))
    notes: list[str] = field(default_factory=list)


def _found_in(
    run: Any, selection: FrameSelection, recipe_of: Callable[[Mapping[str, Any]], Any], *, dark_run: bool = False
) -> _Found:
    def takes_stream(name: str) -> bool:
        return name == _BASELINE or selection.takes_stream(name) or selection.is_dark_stream(name)

    found = _Found()
    router = FrameRouter(
        found.frames.extend,
        note=found.notes.append,
        frames=selection,
        recipe_of=recipe_of,
        take_dark=found.darks.add,
    )
    try:
        for name, document in documents_of(run, takes_stream):
            if name == "start":
                found.uid = document["uid"]
                document = {**document, "dark_frame": True} if dark_run else document  # noqa: PLW2901
            router(name, document)
    except (DocumentError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise FramesNotFoundError(
            f"run {found.uid}: its documents do not follow the event model: {type(error).__name__}: {error}. "
            "Convert its files with convert_files."
        ) from error
    return found


def _add_dark_run(book: DarkBook, catalogue: Any, uid: str) -> str:
    """Add the darks of a run to those of another one; return why there are none, "" if there are."""
    if catalogue is None:
        return "it is looked up only with a catalogue"
    try:
        for dark in darks_of_run(find_run(catalogue, uid)):
            book.add(dark)
    except FramesNotFoundError as error:
        return str(error)
    return ""
