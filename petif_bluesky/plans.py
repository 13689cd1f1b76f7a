"""Plans that convert existing files: given by name, in a folder, or from a catalogued run.

Each plan makes one run, with the usual streams `converted`, `unconverted` and `conversion`. Before the run opens, a
thread checks that the server, which may be on another host, can see the files; a wrong name, or a server that does not
answer, ends the plan before the run starts. A frame that fails to convert does not end the plan: it is listed in
`unconverted`. The RunEngine's thread never waits for the network.

The plans can be queued in bluesky-queueserver: arguments are JSON, and devices are given by name.
"""
# No future annotations here: bluesky-queueserver reads the types themselves.

from collections.abc import Sequence
from typing import Any

from bluesky.protocols import Readable
from bluesky.utils import MsgGenerator, plan

from petif_bluesky.converter_base import ConverterBase
from petif_bluesky.documents.errors import FramesNotFoundError
from petif_bluesky.documents.frame import Frame
from petif_bluesky.documents.run_recipe import session_recipe
from petif_bluesky.plan_stubs.background import in_background
from petif_bluesky.plan_stubs.conversion_run import conversion_run
from petif_bluesky.plan_stubs.server_files import frames_in_folder, require_files
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
    """Convert files in a new run; return its uid.

    The n-th file has `seq_num` n in the stream `converted`, and no `stream`. A path given twice is one frame.

    Parameters
    ----------
    converter
        the `PETifConverter` or `ConversionDevice`
    paths
        as the server sees them, or as its `path_maps` translate them
    recipe
        in any form that `Recipe.parse` accepts; by default the converter's recipe (`configure`), else the server's
    timeout
        seconds to wait for the server, before the run and during it; frames without a report by then are still
        converted later (`drained` is False)
    spool
        the file that holds requests until the server accepts them; by default the callback's
    md
        metadata of the run

    Raises
    ------
    FramesNotFoundError
        if there are no paths, or the server cannot see one of the files; no run is opened.
    LinkError
        if the server does not answer; no run is opened.
    ValueError
        if the recipe is invalid, or replaces files without `allow_in_place`.

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
    """Convert the frames now in a folder, in a new run; return its uid.

    The server lists the folder as its command AddFolder does, without darks and subfolders: TIFFs, and with the extra
    `formats` on the server CBF, EDF, MarCCD and HDF5, too.

    Parameters
    ----------
    converter
        the `PETifConverter` or `ConversionDevice`
    folder
        as the server sees it, or as its `path_maps` translate it
    recipe, timeout, spool, md
        as for `convert_files`

    Raises
    ------
    FramesNotFoundError
        if the folder has no frames; no run is opened.
    LinkError
        if the server may not read the folder, or does not answer; no run is opened.
    ValueError
        if the recipe is invalid, or replaces files without `allow_in_place`.

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
    """Convert the frames of a catalogued run with another recipe, in a new run; return the uid of the new run.

    The start document of the new run has the uid of the old one as `parent_uid`; its stream `converted` has the raw
    path of each frame, and its `stream` and `seq_num` in the old run. The old run, its raw files and its outputs are
    not changed: if an output exists, the new one gets a number (`-00001`), unless the recipe sets `on_existing`.

    With a recipe whose dark is that of the run, the darks are those of the old run, and its dark frames are not
    converted. A frame that has no earlier dark gets the first later one; its report says so. Darks of the run that
    `sc_dk_field_uid` names are looked up in `catalogue`.

    Before the new run opens, a thread reads the old one from the catalogue, with a few requests per stream, and checks
    that the server can see the files. The catalogue is not queried while the new run is open.

    Parameters
    ----------
    converter
        the `PETifConverter` or `ConversionDevice`
    run
        the uid of the run, or its Tiled client
    recipe
        in any form that `Recipe.parse` accepts
    catalogue
        the Tiled client used to look up a uid, of the run or of its run of darks; for the queueserver, wrap this plan
        in one that has the client
    timeout, spool, md
        as for `convert_files`

    Raises
    ------
    FramesNotFoundError
        if the catalogue does not have the run, the run has no frames, or the server cannot see one of them. The message
        names the run. No run is opened.
    LinkError
        if the server does not answer; no run is opened.
    ValueError
        if the recipe is invalid, or replaces files without `allow_in_place`.

    """
    device, chosen = _converter(converter), _numbering(session_recipe(recipe))
    if isinstance(run, str) and catalogue is None:
        raise ValueError(f"run: cannot look up uid {run!r} without a catalogue. Pass catalogue as well.")

    def find() -> list[Frame]:
        found = find_run(catalogue, run) if isinstance(run, str) else run
        frames = frames_of_run(found, recipe=chosen, catalogue=catalogue)
        require_files(device.client, [frame.path for frame in frames], timeout, f"run {frames[0].run_uid}")
        return frames

    raw: list[Frame] = yield from in_background(find, _THREAD)
    about = {"plan_name": "reprocess_run", "num_frames": len(raw), **(md or {}), "parent_uid": raw[0].run_uid}
    return (yield from conversion_run(device, raw, recipe=chosen, md=about, timeout=timeout, spool=spool))


def _converter(given: Any) -> ConverterBase:
    if not isinstance(given, ConverterBase):
        raise ValueError(f"converter: {given!r} is not a PETifConverter or ConversionDevice. Pass the device.")  # noqa: TRY004
    return given


def _named(paths: Any) -> list[str]:
    """Return the paths in order, without duplicates."""
    if isinstance(paths, str):
        raise ValueError(f"paths: {paths!r} is not a list. Put it into a list.")  # noqa: TRY004
    named = list(dict.fromkeys(map(str, paths)))
    if not named:
        raise FramesNotFoundError("paths: the list is empty. Pass at least one file.")
    return named


def _by_name(paths: Sequence[str]) -> list[Frame]:
    return [Frame(path, number) for number, path in enumerate(paths, start=1)]


def _numbering(recipe: Recipe | None) -> Recipe:
    """Return the recipe; unless it sets `on_existing`, existing files are kept and new ones get a number."""
    if recipe is None:
        raise ValueError("recipe: reprocessing needs a recipe, not None. Pass one.")
    if isinstance(recipe.output, NewFile) and "on_existing" not in recipe.output.model_fields_set:
        return recipe.model_copy(update={"output": recipe.output.model_copy(update={"on_existing": "number"})})
    return recipe
