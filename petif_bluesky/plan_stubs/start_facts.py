"""What the start document of a run says about its conversion."""

from collections.abc import Mapping
from typing import Any

from petif_bluesky.converter import PETifConverter
from petif_bluesky.signals.recipe import session_recipe
from tango_server.recipe import Recipe

CONVERSION = "conversion"
"""The key in the start document, and the stream with the statistics."""
_MARK = "recipe_source"


def has_facts(from_plan: Any) -> bool:
    """Whether a wrapper within this one has put the facts there already: the run is its own."""
    return isinstance(from_plan, Mapping) and _MARK in from_plan


def start_facts(converter: PETifConverter, recipe: Recipe | None, from_plan: Any) -> dict[str, Any]:
    """Return what the start document says under `conversion`, from what a plan's own metadata bring there."""
    if not isinstance(from_plan, Mapping):
        raise ValueError(  # noqa: TRY004 - a value that a user has written
            f"{CONVERSION} in the plan's metadata: found {from_plan!r}; expected a dict, as {{'recipe': {{...}}}}. "
            "Name other metadata otherwise."
        )
    own = session_recipe(from_plan.get("recipe")) or recipe or converter.recipe.chosen
    server = converter.link.server
    return {
        **from_plan,
        "recipe": own.model_dump(mode="json") if own else server.recipe,
        _MARK: "run" if own else "server",
        "device": converter.link.address,
        "server_version": server.version,
    }
