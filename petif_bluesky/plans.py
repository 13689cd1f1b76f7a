"""Plans that convert files which are on disk already: by their names, a whole folder, or those of a catalogued run.

Each makes one run, with the streams of every other run: `converted`, `unconverted` and `conversion`. Before the run is
opened a thread asks the server, which may be on another host, whether it sees the files; so a wrong name, or a server
that does not answer, ends the plan before anything was begun. A frame that can't be converted does not: it is told in
`unconverted`. Nothing waits for a network in the RunEngine's thread.

The plans may stand in a queue of bluesky-queueserver: their arguments are JSON, and devices are named.
"""
# No future annotations here: bluesky-queueserver reads the types themselves.

from collections.abc import Sequence
from typing import Any

from bluesky.protocols import Readable
from bluesky.utils import MsgGenerator, plan

from petif_bluesky.converter import PETifConverter
from petif_bluesky.documents.errors import FramesNotFoundError
from petif_bluesky.documents.frame import Frame
from petif_bluesky.plan_stubs.background import in_background
from petif_bluesky.plan_stubs.conversion_run import conversion_run
from petif_bluesky.plan_stubs.server_files import frames_in_folder, require_files
from petif_bluesky.signals.recipe import session_recipe
from petif_bluesky.tiled.raw_frames import find_run, frames_of_run
from tango_server.recipe import NewFile, Recipe

__all__ = ["FramesNotFoundError", "convert_files", "convert_folder", "reprocess_run"]

_THREAD = "petif-find"


@plan
def convert_files(
    converter: Readable,
    paths: Sequence[str],
    *,
    recipe: dict[str, Any] | str | None = None,
    timeout: float = 600.0,
    spool: str | None = None,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Convert files by their names, in a run of its own; return its uid.

    The n-th file has `seq_num` n in the stream `converted`, and no `stream`. A name that stands there twice is one
    frame.

    Parameters
    ----------
    converter
        the `PETifConverter`
    paths
        as the server sees them, or as its path maps translate them
    recipe
        a `Recipe`, its fields (also on top of a `preset`), or a preset's name; by default that of the converter
        (`configure`), else the server's
    timeout
        seconds for which the server is waited for, before the run and in it; frames that have no report then are
        converted all the same (`drained` is False)
    spool
        the file in which requests wait for the server, by default that of the callback
    md
        metadata of the run

    Raises
    ------
    FramesNotFoundError
        if there are no paths, or the server does not see a file; no run is opened.
    LinkError
        if the server does not answer; no run is opened.
    ValueError
        if the recipe is none, or one that replaces files without `allow_in_place`.

    """
    device, chosen = _converter(converter), session_recipe(recipe)
    named = _named(paths)
    yield from in_background(lambda: require_files(device.client, named, timeout, "convert_files"), _THREAD)
    about = {"plan_name": "convert_files", "num_frames": len(named), **(md or {})}
    return (yield from conversion_run(device, _by_name(named), recipe=chosen, md=about, timeout=timeout, spool=spool))


@plan
def convert_folder(
    converter: Readable,
    folder: str,
    *,
    recipe: dict[str, Any] | str | None = None,
    timeout: float = 600.0,
    spool: str | None = None,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Convert the frames that are in a folder now, in a run of its own; return its uid.

    The server lists the folder, and takes what its command AddFolder takes: `.tif` and `.tiff` in any case, no darks,
    no sub-folders.

    Parameters
    ----------
    converter
        the `PETifConverter`
    folder
        as the server sees it, or as its path maps translate it
    recipe, timeout, spool, md
        as for `convert_files`

    Raises
    ------
    FramesNotFoundError
        if there are no frames in it; no run is opened.
    LinkError
        if it is no folder that the server may read, or the server does not answer; no run is opened.
    ValueError
        if the recipe is none, or one that replaces files without `allow_in_place`.

    """
    device, chosen = _converter(converter), session_recipe(recipe)
    found: list[str] = yield from in_background(lambda: frames_in_folder(device.client, folder, timeout), _THREAD)
    about = {"plan_name": "convert_folder", "folder": folder, "num_frames": len(found), **(md or {})}
    return (yield from conversion_run(device, _by_name(found), recipe=chosen, md=about, timeout=timeout, spool=spool))


@plan
def reprocess_run(
    converter: Readable,
    run: str,
    *,
    recipe: dict[str, Any] | str,
    catalogue: Any = None,
    timeout: float = 600.0,
    spool: str | None = None,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[str]:
    """Convert the frames of a catalogued run with another recipe, in a new run; return the uid of that.

    The new run has the old one's uid as `parent_uid` in its start document, and in `converted` each frame's raw path,
    and its `stream` and `seq_num` in the old run. The old run, its raw files and the converted files that it tells of
    stay as they are: where an output is there already, the new one is numbered (`-00001`), unless the recipe says
    `on_existing` itself.

    Before the new run is opened a thread reads the old one from the catalogue, which takes a few requests for each
    stream, and asks the server whether it sees the files. While the new run is open the catalogue is not asked.

    Parameters
    ----------
    converter
        the `PETifConverter`
    run
        the uid of the run, or its Tiled client
    recipe
        a `Recipe`, its fields (also on top of a `preset`), or a preset's name
    catalogue
        the Tiled client in which a uid is looked up; queues need a plan of their own that knows it
    timeout, spool, md
        as for `convert_files`

    Raises
    ------
    FramesNotFoundError
        if the catalogue does not have the run, the run has no frames, or the server does not see one of them; it names
        the run. No run is opened.
    LinkError
        if the server does not answer; no run is opened.
    ValueError
        if the recipe is none, or one that replaces files without `allow_in_place`.

    """
    device, chosen = _converter(converter), _numbering(session_recipe(recipe))
    if isinstance(run, str) and catalogue is None:
        raise ValueError(f"run: found the uid {run!r} without a catalogue; expected one to look it up in. Give both.")

    def find() -> list[Frame]:
        frames = frames_of_run(find_run(catalogue, run) if isinstance(run, str) else run)
        require_files(device.client, [frame.path for frame in frames], timeout, f"run {frames[0].run_uid}")
        return frames

    raw: list[Frame] = yield from in_background(find, _THREAD)
    about = {"plan_name": "reprocess_run", "num_frames": len(raw), **(md or {}), "parent_uid": raw[0].run_uid}
    return (yield from conversion_run(device, raw, recipe=chosen, md=about, timeout=timeout, spool=spool))


def _converter(given: Any) -> PETifConverter:
    if not isinstance(given, PETifConverter):
        raise ValueError(f"converter: found {given!r}; expected a PETifConverter. Name the device.")  # noqa: TRY004
    return given


def _named(paths: Any) -> list[str]:
    """Return each path once, in their order."""
    if isinstance(paths, str):
        raise ValueError(f"paths: found {paths!r}; expected a list of paths. Put it into one.")  # noqa: TRY004
    named = list(dict.fromkeys(map(str, paths)))
    if not named:
        raise FramesNotFoundError("paths: found none; expected the names of files. Name some.")
    return named


def _by_name(paths: Sequence[str]) -> list[Frame]:
    return [Frame(path, number) for number, path in enumerate(paths, start=1)]


def _numbering(recipe: Recipe | None) -> Recipe:
    """Return the recipe; one that says nothing of files that are there leaves them, and takes other names."""
    if recipe is None:
        raise ValueError("recipe: found None; expected the recipe to convert the run with. Give one.")
    if isinstance(recipe.output, NewFile) and "on_existing" not in recipe.output.model_fields_set:
        return recipe.model_copy(update={"output": recipe.output.model_copy(update={"on_existing": "number"})})
    return recipe
