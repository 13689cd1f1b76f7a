"""From a request to a ledger entry: validated, its paths resolved and within the roots, or refused in words."""

import secrets
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tango_server.conversion.errors import PathError
from tango_server.conversion.files.path_map import PathMap
from tango_server.conversion.files.roots import Resolve, Roots, output_path
from tango_server.jobs.ledger.rows import NO_OUTPUT, Entry, fields_of
from tango_server.jobs.state_machine.events import Job
from tango_server.messages import FrameRequest
from tango_server.recipe import InPlace, NewFile, Recipe
from tango_server.recipe.esperanto import RESOLVED_MASK
from tango_server.text import explain, printable

NO_MAP = PathMap()


def entry_for(
    raw: dict[str, Any],
    server_recipe: Recipe,
    roots: Roots,
    now: float,
    paths: PathMap = NO_MAP,
    *,
    resolve: Resolve = Path.resolve,
) -> Entry:
    """Return the ledger entry for one request as it came over the wire.

    `now` is in Unix seconds, `paths` tell how clients name the folders of this host, `resolve` may remember folders.
    An entry that carries a report is a refusal.
    """
    job_id = secrets.token_hex(8)
    try:
        request = FrameRequest.model_validate(raw)
    except ValidationError as error:
        named = printable(str(raw.get("source") or "")) or "(no source)"
        run_uid, stream, seq_num, key = (_good(raw, name) for name in ("run_uid", "stream", "seq_num", "key"))
        job = Job(job_id, Path(named), NO_OUTPUT, server_recipe, now, run_uid, stream, seq_num)
        if any(fault["type"] == "string_unicode" and fault["loc"] == ("source",) for fault in error.errors()):
            reason = f"{named}: its name is not UTF-8, and no ledger can hold it. Rename it, and submit it again."
        else:
            reason = f"{named}: the request is wrong: {explain(error)}. Correct the field and submit it again."
        return Entry(job, key, {}, job.failed(reason, now))
    recipe = request.recipe or server_recipe
    source, output, reason = _places(request, recipe, roots, paths, resolve)
    metadata = {name: value for name, value in request.metadata.items() if name != RESOLVED_MASK}
    if not reason:
        try:
            if (mask := mask_in(recipe, roots, paths, resolve)) is not None:
                metadata[RESOLVED_MASK] = str(mask)
        except PathError as error:
            source, output, reason = Path(request.source), NO_OUTPUT, f"mask: {error}"
    job = Job(
        job_id,
        source,
        output,
        recipe,
        now,
        request.run_uid,
        request.stream,
        request.seq_num,
        source_root=None if reason else roots.root_of(source),
        output_root=None if reason else roots.write_root_of(output),
    )
    return Entry(job, request.key, metadata, job.failed(reason, now) if reason else None)


def _good(raw: dict[str, Any], name: str) -> Any:
    """Return one field of a request that is wrong elsewhere, None if it is wrong itself."""
    try:
        return getattr(FrameRequest.model_validate({"source": "any", name: raw.get(name)}), name)
    except ValidationError:
        return None


def translated(recipe: Recipe, paths: PathMap) -> Recipe:
    """Return the recipe with its output folder as it is called here; raise `PathError`."""
    output = recipe.output
    if not isinstance(output, NewFile) or output.folder is None:
        return recipe
    here = output.model_copy(update={"folder": paths.translate(output.folder)})
    return recipe.model_copy(update={"output": here})


def mask_in(recipe: Recipe, roots: Roots, paths: PathMap, resolve: Resolve = Path.resolve) -> Path | None:
    """Return the resolved path of a recipe's mask, None if it has none; raise `PathError` if it may not be read."""
    if recipe.esperanto is None or recipe.esperanto.mask is None:
        return None
    return roots.source(paths.translate(recipe.esperanto.mask), resolve)


def _places(
    request: FrameRequest, recipe: Recipe, roots: Roots, paths: PathMap, resolve: Resolve
) -> tuple[Path, Path, str]:
    """Return source, output and the reason to refuse (empty: none)."""
    if request.run_uid and isinstance(recipe.output, InPlace) and not recipe.output.allow_in_place:
        reason = (
            f"{request.source}: found output in_place for a frame of a run; expected output to new files, because the "
            "run's documents describe the raw file. Set allow_in_place in the recipe's output if this is really meant."
        )
        return Path(request.source), NO_OUTPUT, reason
    try:
        source = roots.frame(paths.translate(request.source), resolve)
        fields = fields_of(request.run_uid, request.seq_num, request.metadata)
        return source, output_path(source, translated(recipe, paths), roots, fields, resolve), ""
    except PathError as error:
        return Path(request.source), NO_OUTPUT, str(error)
