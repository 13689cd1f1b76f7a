"""Makes jobs from requests: validates them and resolves their paths within the roots, or refuses them."""

import re
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tango_server.conversion.errors import NameTemplateError, PathError
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.naming import is_of_other_format, series_of
from tango_server.conversion.files.path_checks import require_printable
from tango_server.conversion.files.path_map import PathMap
from tango_server.conversion.files.roots import Resolve, Roots, output_path, resolve_path
from tango_server.jobs.grouping import every_of, place_of, problem_with
from tango_server.jobs.job import NO_OUTPUT, Job
from tango_server.jobs.masters import Locate, locator
from tango_server.messages import FrameOrigin, FrameRequest, frame_job_id
from tango_server.recipe import NewFile, Recipe
from tango_server.text import explain, printable, split_data_set

NO_MAP = PathMap()
_COUNTED = re.compile(r"/(?P<place>\d{1,9})(?P<undark>/no-dark)?$", re.ASCII)
"""The number of a group of every n frames in its id, from 0, as the callback gives it."""
_MAIN_STREAM = "primary"
_UNFIT = re.compile(r"[^\w.-]")  # in a file name


def job_for(
    raw: dict[str, Any],
    server_recipe: Recipe,
    roots: Roots,
    now: float,
    paths: PathMap = NO_MAP,
    *,
    resolve: Resolve = resolve_path,
    locate: Locate | None = None,
) -> Job:
    """Return the job for a request from the wire; if invalid, a refused job with the reason.

    `now` is in Unix seconds, `paths` maps clients' paths to folders of this host. `resolve` may cache folders, `locate`
    the masters of recipes.
    """
    job_id = secrets.token_hex(8)
    try:
        request = FrameRequest.model_validate(raw)
    except ValidationError as error:
        named, reason = _named(raw, error)
        return Job(job_id, _valid_part(raw, named, server_recipe), _file(named), NO_OUTPUT, now, refused=reason)
    request = request.model_copy(update={"recipe": request.recipe or server_recipe})
    job = Job(job_id, request, _file(request.source), NO_OUTPUT, now)
    if problem := problem_with(request):
        return replace(job, refused=_invalid(request.source, problem))
    try:
        return _placed(job, roots, paths, resolve, locate or locator(roots, paths, resolve))
    except PathError as error:
        return replace(job, refused=str(error))


def _placed(job: Job, roots: Roots, paths: PathMap, resolve: Resolve, locate: Locate) -> Job:
    """Return the job with its paths resolved; raise `PathError`."""
    request, recipe = job.request, job.recipe
    if request.run_uid:
        try:
            recipe.fit_for_run()
        except ValueError as error:
            return replace(job, refused=_invalid(request.source, str(error)))
    file, data_set = split_data_set(paths.translate(request.source))
    require_printable(data_set)
    source = roots.frame(file, resolve)
    frame = FrameLocation(source, data_set, request.frame)
    output = _output_of(request, frame, translated(recipe, paths), roots, resolve)
    try:
        mask = mask_in(recipe, roots, paths, resolve)
    except PathError as error:
        return replace(job, refused=f"mask: {error}")
    corrections = None if recipe.corrections is None else locate(recipe.corrections, bool(request.run_uid))
    source_root, output_root = roots.root_of(source), roots.write_root_of(output)
    return replace(
        job,
        source=source,
        output=output,
        source_root=source_root,
        output_root=output_root,
        mask=mask,
        corrections=corrections,
    )


def _output_of(request: FrameRequest, frame: FrameLocation, recipe: Recipe, roots: Roots, resolve: Resolve) -> Path:
    """Return the output of a frame; of a whole file whose frames a template names, that of the first one."""
    named, fields = _named_as(request, frame, recipe)
    try:
        return output_path(named, recipe, roots, fields, resolve)
    except NameTemplateError:
        if frame.index is not None or not is_of_other_format(frame):
            raise
        return output_path(replace(frame, index=0), recipe, roots, fields, resolve)


def frame_job(
    job: Job, index: int, roots: Roots, now: float, paths: PathMap, *, resolve: Resolve = resolve_path
) -> Job:
    """Return the job for one frame of a file that is itself a job; its id and key are the same at each call.

    Raises
    ------
    PathError
        if its output is not possible, as of a container in place.
    """
    every = every_of(job.recipe.combine)
    place = {} if every is None else place_of(job.job_id, index, every)
    request = job.request.model_copy(update={"frame": index, "key": f"{job.job_id}#{index}", **place})
    frame = replace(job.location, index=index)
    return replace(
        job,
        job_id=frame_job_id(job.job_id, index),
        request=request,
        output=_output_of(request, frame, translated(job.recipe, paths), roots, resolve),
        accepted=now,
        resumed=False,
    )


def _named_as(request: FrameRequest, frame: FrameLocation, recipe: Recipe) -> tuple[FrameLocation, dict[str, object]]:
    """Return frame and fields for the name of an output; that of a group is named by its first member.

    CrysAlis needs the groups of a scan to be numbered one by one.
    """
    if request.group is None:
        return frame, request.fields
    fields = {**request.fields, "group": request.group, "first": frame.stem, "last": frame.stem}
    every, output = every_of(recipe.combine), recipe.output
    if every is None or recipe.esperanto is None or (isinstance(output, NewFile) and output.template is not None):
        return frame, fields
    if request.run_uid:
        return _named_in_run(request, frame, fields)
    if frame.index is not None:
        return replace(frame, index=frame.index // every), fields
    series, number = series_of(frame.file)
    if number is None:
        return frame, fields
    name = f"{series}_{(number - 1) // every + 1}{frame.file.suffix}"
    return replace(frame, file=frame.file.with_name(name)), fields


def _named_in_run(
    request: FrameRequest, frame: FrameLocation, fields: dict[str, object]
) -> tuple[FrameLocation, dict[str, object]]:
    """Return the same for one of every n frames of a run: they are counted for each stream, with and without a dark."""
    counted = _COUNTED.search(request.group or "")
    if counted is None:
        return frame, fields
    apart = [] if request.stream in {None, _MAIN_STREAM} else [_UNFIT.sub("_", str(request.stream))]
    apart += ["no_dark"] if counted["undark"] else []
    file, place = frame.file, int(counted["place"])
    if apart:
        begin = file.stem if frame.index is not None else series_of(file)[0]
        file = file.with_name(f"{'_'.join([begin, *apart])}{file.suffix}")
    if frame.index is not None:
        return replace(frame, file=file, index=place), fields
    return replace(frame, file=file), {**fields, "seq_num": place + 1, "number": 0}


def _named(raw: dict[str, Any], error: ValidationError) -> tuple[str, str]:
    """Return the file name in an invalid request, and why it is refused."""
    named = printable(str(raw.get("source") or "")) or "(no source)"
    if any(fault["type"] == "string_unicode" and fault["loc"] == ("source",) for fault in error.errors()):
        return named, f"{named}: cannot accept: the file name is not UTF-8. Rename the file and submit it again."
    return named, _invalid(named, explain(error))


def _file(source: str) -> Path:
    return Path(split_data_set(source)[0])


def _invalid(source: str, problem: str) -> str:
    return f"{source}: invalid request: {problem}. Correct it and submit it again."


def _valid_part(raw: dict[str, Any], named: str, recipe: Recipe) -> FrameRequest:
    """Return an invalid request with its valid fields, so that the failure counts in its run."""
    valid = {name: _valid_field(raw, name) for name in ("key", *FrameOrigin.model_fields)}
    return FrameRequest.model_construct(source=named, recipe=recipe, **valid)


def _valid_field(raw: dict[str, Any], name: str) -> Any:
    """Return one field of an invalid request, None if that field is invalid."""
    try:
        return getattr(FrameRequest.model_validate({"source": "any", name: raw.get(name)}), name)
    except ValidationError:
        return None


def translated(recipe: Recipe, paths: PathMap) -> Recipe:
    """Return the recipe with its output folder mapped to a path on this host; raise `PathError`."""
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
