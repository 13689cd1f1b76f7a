"""From a request to a job: validated, its paths resolved and within the roots, or refused in words."""

import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tango_server.conversion.errors import PathError
from tango_server.conversion.files.path_map import PathMap
from tango_server.conversion.files.roots import Resolve, Roots, output_path, resolve_path
from tango_server.jobs.job import NO_OUTPUT, Job
from tango_server.messages import FrameOrigin, FrameRequest
from tango_server.recipe import InPlace, NewFile, Recipe
from tango_server.text import explain, printable

NO_MAP = PathMap()


def job_for(
    raw: dict[str, Any],
    server_recipe: Recipe,
    roots: Roots,
    now: float,
    paths: PathMap = NO_MAP,
    *,
    resolve: Resolve = resolve_path,
) -> Job:
    """Return the job for one request as it came over the wire, or one that says why it is refused.

    `now` is in Unix seconds, `paths` tell how clients name the folders of this host, `resolve` may remember folders.
    """
    job_id = secrets.token_hex(8)
    try:
        request = FrameRequest.model_validate(raw)
    except ValidationError as error:
        named, reason = _named(raw, error)
        return Job(job_id, _as_far_as_good(raw, named, server_recipe), Path(named), NO_OUTPUT, now, refused=reason)
    request = request.model_copy(update={"recipe": request.recipe or server_recipe})
    job = Job(job_id, request, Path(request.source), NO_OUTPUT, now)
    try:
        return _placed(job, roots, paths, resolve)
    except PathError as error:
        return replace(job, refused=str(error))


def _placed(job: Job, roots: Roots, paths: PathMap, resolve: Resolve) -> Job:
    """Return the job with its paths resolved; raise `PathError`."""
    request, recipe = job.request, job.recipe
    if request.run_uid and isinstance(recipe.output, InPlace) and not recipe.output.allow_in_place:
        reason = (
            f"{request.source}: found output in_place for a frame of a run; expected output to new files, because the "
            "run's documents describe the raw file. Set allow_in_place in the recipe's output if this is really meant."
        )
        return replace(job, refused=reason)
    source = roots.frame(paths.translate(request.source), resolve)
    output = output_path(source, translated(recipe, paths), roots, request.fields, resolve)
    try:
        mask = mask_in(recipe, roots, paths, resolve)
    except PathError as error:
        return replace(job, refused=f"mask: {error}")
    source_root, output_root = roots.root_of(source), roots.write_root_of(output)
    return replace(job, source=source, output=output, source_root=source_root, output_root=output_root, mask=mask)


def _named(raw: dict[str, Any], error: ValidationError) -> tuple[str, str]:
    """Return what a wrong request calls its file, and why it is refused."""
    named = printable(str(raw.get("source") or "")) or "(no source)"
    if any(fault["type"] == "string_unicode" and fault["loc"] == ("source",) for fault in error.errors()):
        return named, f"{named}: its name is not UTF-8, and no ledger can hold it. Rename it, and submit it again."
    return named, f"{named}: the request is wrong: {explain(error)}. Correct the field and submit it again."


def _as_far_as_good(raw: dict[str, Any], named: str, recipe: Recipe) -> FrameRequest:
    """Return a wrong request with those of its fields that are right, so that its run knows of the frame."""
    good = {name: _good(raw, name) for name in ("key", *FrameOrigin.model_fields)}
    return FrameRequest.model_construct(source=named, recipe=recipe, **good)


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


def mask_in(recipe: Recipe, roots: Roots, paths: PathMap, resolve: Resolve = resolve_path) -> Path | None:
    """Return the resolved path of a recipe's mask, None if it has none; raise `PathError` if it may not be read."""
    if recipe.esperanto is None or recipe.esperanto.mask is None:
        return None
    return roots.source(paths.translate(recipe.esperanto.mask), resolve)
