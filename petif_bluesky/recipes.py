"""What people may write for a recipe, in a plan or in an item of a queue, which is JSON."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from tango_server.recipe import Recipe


def recipe_of(given: Any) -> Recipe | None:
    """Return the recipe that is meant by a `Recipe`, the name of a preset, fields, or None (which means none).

    Fields may go on top of a preset:

    >>> recipe_of({"preset": "xdi", "rotation": 90}) == Recipe.preset("xdi", rotation=90)
    True

    Raises
    ------
    ValueError
        if it is none of these.

    """
    if given is None or isinstance(given, Recipe):
        return given
    try:
        if isinstance(given, str):
            return Recipe.preset(given)
        if isinstance(given, Mapping):
            fields = dict(given)
            preset = fields.pop("preset", None)
            return Recipe.model_validate(fields) if preset is None else Recipe.preset(preset, **fields)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise ValueError(f"recipe: found {given!r} ({wrong}); expected the fields of a Recipe. Correct it.") from error
    raise ValueError(
        f"recipe: found {given!r}; expected a Recipe, its fields as a dict, or the name of a preset, as 'xdi'. "
        "Correct it."
    )
