"""The recipe that a session has chosen for its next runs, as a signal that may be set in plans."""

import time
from typing import Any

from ophyd import Signal
from ophyd.status import Status

from tango_server.recipe import InPlace, Recipe


def session_recipe(given: Any) -> Recipe | None:
    """Return the recipe that a session is given, in whatever form `Recipe.parse` takes; None for None or "".

    Raises
    ------
    ValueError
        if it is no recipe, or one that converts in place without `allow_in_place`: the run's documents would not fit
        the files.

    """
    if given is None or given == "":
        return None
    recipe = Recipe.parse(given)
    if isinstance(recipe.output, InPlace) and not recipe.output.allow_in_place:
        raise ValueError(
            "recipe.output: found in_place; expected new files, because the run's documents describe the raw files. "
            'If this is really meant, say so: output={"mode": "in_place", "allow_in_place": True}.'
        )
    return recipe


class RecipeSignal(Signal):
    """A recipe, kept as JSON (documents hold no objects); empty if none was chosen.

    Set it to whatever `Recipe.parse` takes, or to None. The server is not asked: the recipe goes with each frame.
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
        recipe = session_recipe(value)
        text = recipe.model_dump_json() if recipe else ""
        super().put(text, timestamp=timestamp or time.time(), force=force, **kwargs)

    def set(self, value: Any, *, timeout: float | None = None, settle_time: float | None = None) -> Status:
        """Take a recipe at once; return a status that is done."""
        del timeout, settle_time
        status = Status(self)
        self.put(value)
        status.set_finished()
        return status
