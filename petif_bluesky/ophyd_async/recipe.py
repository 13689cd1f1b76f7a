"""The recipe of a session for its next runs, as an ophyd-async signal."""

from typing import Any

from event_model import DataKey
from ophyd_async.core import SignalRW, SoftSignalBackend

from petif_bluesky.documents.run_recipe import session_recipe
from tango_server.recipe import Recipe


class RecipeSignal(SignalRW[str]):
    """A recipe, stored as JSON for documents; empty if none is set.

    Set it to anything that `Recipe.parse` accepts, or to None. The server is not called: the recipe is sent with each
    frame.
    """

    def __init__(self) -> None:
        self._stored = _RecipeBackend(str)
        super().__init__(self._stored)

    @property
    def chosen(self) -> Recipe | None:
        """The recipe, None if none is set."""
        text = self._stored.reading["value"]
        return Recipe.model_validate_json(text) if text else None

    def put(self, value: Any) -> None:
        """Set the recipe; raise `ValueError` if it is invalid, or would replace the frames of a run."""
        self._stored.set_value(_json(value))

    def reading(self) -> dict[str, Any]:
        """Return the stored value and its timestamp."""
        return dict(self._stored.reading)


class _RecipeBackend(SoftSignalBackend[str]):
    async def put(self, value: Any) -> None:
        await super().put(_json(value))

    async def get_datakey(self, source: str) -> DataKey:
        """Return the data key without the type that would cut the text after 40 characters."""
        return DataKey(source=source, dtype="string", shape=[])


def _json(value: Any) -> str:
    recipe = session_recipe(value)
    return recipe.model_dump_json() if recipe else ""
