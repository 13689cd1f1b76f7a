"""The recipe for a run, from its metadata or for a session, in any spelling. Pure."""

import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, TypeVar

from tango_server.recipe import Recipe
from tango_server.recipe.base import Frozen

_Part = TypeVar("_Part", bound=Frozen)

_FIELDS = ["preset", *Recipe.model_fields]
_CLOSE = 0.75
_ADVICE = 'Put other metadata under another key, or beside "recipe" in a dict.'


@dataclass(frozen=True, slots=True)
class RunRecipe:
    """The value of `conversion` in the metadata of a run: its recipe, None if it has none, and its other keys."""

    recipe: Recipe | None
    others: dict[str, Any] = field(default_factory=dict)


def recipe_of_run(conversion: Any) -> RunRecipe:
    """Return the recipe in the value of `conversion` in the metadata of a run, and what else is there.

    The value is a dict with the key "recipe", or just a recipe. All forms that `Recipe.parse` accepts are possible; ""
    or None is no recipe, and neither is a dict of other metadata as the value of `conversion`.

    >>> recipe_of_run({"recipe": "xdi", "note": "as last week"})
    RunRecipe(recipe=Recipe(...pixel_type='int32'...), others={'note': 'as last week'})
    >>> recipe_of_run("xdi") == recipe_of_run({"preset": "xdi"}) == recipe_of_run({"recipe": Recipe.preset("xdi")})
    True

    Raises
    ------
    ValueError
        if the recipe is invalid, or converts in place without `allow_in_place`; it names the field.

    """
    given, others = _parted(conversion)
    if given is None or (isinstance(given, str) and not given):
        return RunRecipe(None, others)
    try:
        return RunRecipe(Recipe.parse(given).fit_for_run(), others)
    except ValueError as error:
        advice = f" {_ADVICE}" if given is conversion else ""
        raise ValueError(f"conversion in the run's metadata: {error}.{advice}") from error


def session_recipe(given: Any) -> Recipe | None:
    """Return the recipe given for a session, in any form that `Recipe.parse` accepts; None for None or "".

    Raises
    ------
    ValueError
        if the recipe is invalid, or converts in place without `allow_in_place`: the files would no longer match the
        documents of the run.

    """
    return None if given is None or given == "" else Recipe.parse(given).fit_for_run()


def refusable_recipe(conversion: Any) -> Any:
    """Return an unusable recipe in the form for a request, so that the server refuses each frame with the same reason.

    Its JSON form; for what has none, such as an object, its shortened text.
    """
    given, _ = _parted(conversion)
    try:
        return Recipe.parse(given).model_dump(mode="json")  # valid, but not for a run
    except ValueError:
        pass
    try:
        return json.loads(json.dumps(given, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return [reprlib.repr(given)]  # in a list: a text alone would be read as the name of a preset


def _parted(conversion: Any) -> tuple[Any, dict[str, Any]]:
    """Return the recipe as given in the value of `conversion`, None if that is empty, and the other keys."""
    if not isinstance(conversion, Mapping):
        return conversion, {}
    if "recipe" not in conversion:
        return (conversion, {}) if _means_a_recipe(conversion) else (None, dict(conversion))
    return conversion["recipe"], {key: value for key, value in conversion.items() if key != "recipe"}


def _means_a_recipe(conversion: Mapping[str, Any]) -> bool:
    """Return whether a dict has a field of a recipe, perhaps misspelled."""
    return any(get_close_matches(str(key), _FIELDS, n=1, cutoff=_CLOSE) for key in conversion)


def part_of_recipe(recipe: Any, name: str, kind: type[_Part]) -> _Part | None:
    """Return a part of a recipe in JSON by its name; None if it has none, or an invalid one."""
    given = recipe.get(name) if isinstance(recipe, Mapping) else None
    if given is None:
        return None
    try:
        return kind.model_validate(given)
    except ValueError:  # the server reports the error for each frame
        return None
