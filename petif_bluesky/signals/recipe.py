"""The recipe that a session has chosen for its next runs, as a signal that may be set in plans."""

import json
import time
from collections.abc import Mapping
from typing import Any

from ophyd import Signal
from ophyd.status import Status
from pydantic import ValidationError

from tango_server.recipe import InPlace, Recipe


def require_new_files(recipe: Recipe | None) -> None:
    """Refuse a recipe that replaces the frames of a run.

    Raises
    ------
    ValueError
        if the recipe converts in place without `allow_in_place`: the run's documents would not fit the files.

    """
    if recipe is not None and isinstance(recipe.output, InPlace) and not recipe.output.allow_in_place:
        raise ValueError(
            "recipe.output: found in_place; expected new files, because the run's documents describe the raw files. "
            'If this is really meant, say so: output={"mode": "in_place", "allow_in_place": True}.'
        )


class RecipeSignal(Signal):
    """A recipe, kept as JSON (documents hold no objects); empty if none was chosen.

    Set it to a `Recipe`, its fields, its JSON, or to None. The server is not asked: the recipe goes with each frame.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"value": "", **kwargs})

    @property
    def chosen(self) -> Recipe | None:
        """The recipe, None if none was chosen."""
        text = self.get()
        return Recipe.model_validate_json(text) if text else None

    def put(self, value: Any, *, timestamp: float | None = None, force: bool = False, **kwargs: Any) -> None:
        """Take a recipe; raise `ValueError` if it is none, or one that would replace the frames of a run."""
        recipe = _recipe(value)
        require_new_files(recipe)
        text = recipe.model_dump_json() if recipe else ""
        super().put(text, timestamp=timestamp or time.time(), force=force, **kwargs)

    def set(self, value: Any, *, timeout: float | None = None, settle_time: float | None = None) -> Status:
        """Take a recipe at once; return a status that is done."""
        del timeout, settle_time
        status = Status(self)
        self.put(value)
        status.set_finished()
        return status


def _recipe(value: Any) -> Recipe | None:
    if value is None or isinstance(value, Recipe):
        return value
    try:
        fields = (json.loads(value) if value else None) if isinstance(value, str) else value
        return None if fields is None else Recipe.model_validate(fields)
    except (ValidationError, json.JSONDecodeError) as error:
        raise ValueError(
            f"recipe: found {value!r}; expected a Recipe, its fields as a dict or JSON, or None: {error}"
        ) from error


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
