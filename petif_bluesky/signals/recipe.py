"""The recipe of a session for its next runs, as a signal that plans can set."""

import time
from typing import Any

from ophyd import Signal
from ophyd.status import Status

from petif_bluesky.documents.run_recipe import session_recipe
from tango_server.recipe import Recipe


class RecipeSignal(Signal):
    """A recipe, stored as JSON for documents; empty if none is set.

    Set it to anything that `Recipe.parse` accepts, or to None. The server is not called: the recipe is sent with each
    frame.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"value": "", **kwargs})

    @property
    def chosen(self) -> Recipe | None:
        """The recipe, None if none is set."""
        text = self.get()
        return Recipe.model_validate_json(text) if text else None

    def put(self, value: Any, *, timestamp: float | None = None, force: bool = False, **kwargs: Any) -> None:
        """Set the recipe; raise `ValueError` if it is invalid, or would replace the frames of a run."""
        recipe = session_recipe(value)
        text = recipe.model_dump_json() if recipe else ""
        super().put(text, timestamp=timestamp or time.time(), force=force, **kwargs)

    def set(self, value: Any, *, timeout: float | None = None, settle_time: float | None = None) -> Status:
        """Set the recipe at once; return a status that is done."""
        del timeout, settle_time
        status = Status(self)
        self.put(value)
        status.set_finished()
        return status
