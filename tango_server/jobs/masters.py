"""The masters of a recipe's corrections on this host: where their files are, and whether they exist."""

import stat
from collections.abc import Callable
from functools import cache
from pathlib import Path

from pydantic import ValidationError

from tango_server.conversion.errors import PathError
from tango_server.conversion.files.path_map import PathMap
from tango_server.conversion.files.roots import Resolve, Roots
from tango_server.recipe.corrections import Corrections, Kind, split_master
from tango_server.text import explain

Locate = Callable[[Corrections, bool], Corrections]


def locator(roots: Roots, paths: PathMap, resolve: Resolve) -> Locate:
    """Return a function that resolves the paths of corrections, those of each recipe only once.

    Use it for one call of a client: files that come or go later are noticed by the conversion. Its second argument says
    whether masters may be missing: a frame of a run is accepted nevertheless, so that it can be retried. It raises
    `PathError` for a master that may not be read, or is not a file.
    """

    @cache
    def locate(corrections: Corrections, may_be_missing: bool) -> Corrections:  # noqa: FBT001 - cached by both
        return _located(corrections, roots, paths, resolve, may_be_missing=may_be_missing)

    return locate


def _located(
    corrections: Corrections, roots: Roots, paths: PathMap, resolve: Resolve, *, may_be_missing: bool
) -> Corrections:
    found: dict[str, str] = {}
    for kind, given in corrections.masters:
        file, inside = split_master(given)
        if not file:  # in the frame's own file
            found[given] = given
            continue
        try:
            here = roots.source(paths.translate(file), resolve)
        except PathError as error:
            raise _unusable(kind, error.path, error.problem, error.advice) from error
        if not may_be_missing:
            _require_file(kind, file, here)
        found[given] = f"{here}::{inside}" if inside else str(here)
    try:
        return corrections.with_masters(found)
    except ValidationError as error:  # the resolved paths are longer
        raise PathError(next(iter(found)), f"cannot be used: {explain(error)}", "Use shorter paths.") from error


def _require_file(kind: Kind, given: str, here: Path) -> None:
    try:
        regular = stat.S_ISREG(here.stat().st_mode)
    except FileNotFoundError as error:
        raise _unusable(kind, given, "no such file on the conversion host", "Check the path.") from error
    except OSError as error:
        raise _unusable(kind, given, f"{error.strerror}", "Check the path and its permissions.") from error
    if not regular:
        raise _unusable(kind, given, "not a file", "Check the path.")


def _unusable(kind: Kind, path: str, problem: str, advice: str) -> PathError:
    return PathError(path, f"cannot be used as {kind}: {problem}", advice)
