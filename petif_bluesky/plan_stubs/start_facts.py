"""What the start document of a run says about its conversion."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from petif_bluesky.converter import PETifConverter
from petif_bluesky.signals.recipe import session_recipe
from tango_server.recipe import Recipe

CONVERSION = "conversion"
"""The key in the start document, and the stream with the statistics."""
_on_the_way: set[int] = set()
"""Ids of the facts in messages that are on their way to the RunEngine."""


@contextmanager
def on_their_way(facts: Mapping[str, Any]) -> Iterator[None]:
    """Have outer wrappers know these very facts, while the message with them passes through.

    Their keys can't tell: metadata that somebody copies from an earlier run have the same ones.
    """
    _on_the_way.add(id(facts))
    try:
        yield
    finally:
        _on_the_way.discard(id(facts))


def has_facts(from_plan: Any) -> bool:
    """Whether a wrapper within this one has put the facts there already: the run is its own."""
    return id(from_plan) in _on_the_way


def start_facts(converter: PETifConverter, recipe: Recipe | None, from_plan: Any) -> dict[str, Any]:
    """Return what the start document says under `conversion`, from what a plan's own metadata bring there.

    A recipe in the metadata that is none stays as it is: the run goes on, and the server refuses its frames with the
    reason.
    """
    if not isinstance(from_plan, Mapping):
        raise ValueError(  # noqa: TRY004 - a value that a user has written
            f"{CONVERSION} in the plan's metadata: found {from_plan!r}; expected a dict, as {{'recipe': {{...}}}}. "
            "Name other metadata otherwise."
        )
    own = _written_out(from_plan.get("recipe") or recipe or converter.recipe.chosen)
    server = converter.poller.state
    return {
        **from_plan,
        "recipe": own or server.recipe,
        "recipe_source": "run" if own else "server",
        "device": converter.client.address,
        "server_version": server.version,
    }


def _written_out(given: Any) -> Any:
    try:
        recipe = session_recipe(given)
    except ValueError:
        return given
    return recipe.model_dump(mode="json") if recipe else None
