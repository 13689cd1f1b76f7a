"""The conversion metadata in the start document of a run."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from petif_bluesky.converter import PETifConverter
from petif_bluesky.documents.run_recipe import recipe_of_run
from tango_server.recipe import Recipe

CONVERSION = "conversion"
"""The key in the start document, and the name of the stream with the statistics."""
_on_the_way: set[int] = set()
"""Ids of the facts in messages that have not reached the RunEngine yet."""


@contextmanager
def on_their_way(facts: Mapping[str, Any]) -> Iterator[None]:
    """Let outer wrappers recognise these facts while the message with them passes through.

    They are known by identity: metadata copied from an earlier run may have the same keys.
    """
    _on_the_way.add(id(facts))
    try:
        yield
    finally:
        _on_the_way.discard(id(facts))


def has_facts(from_plan: Any) -> bool:
    """Return whether an inner wrapper has already added the facts, so that the run belongs to it."""
    return id(from_plan) in _on_the_way


def start_facts(converter: PETifConverter, recipe: Recipe | None, from_plan: Any) -> dict[str, Any]:
    """Return the value of `conversion` for the start document, from that in the plan's own metadata.

    Raises
    ------
    ValueError
        if the recipe in the metadata is invalid, or converts in place without `allow_in_place`.

    """
    given = recipe_of_run(from_plan)
    own = given.recipe or recipe or converter.recipe.chosen
    server = converter.poller.state
    return {
        **given.others,
        "recipe": own.model_dump(mode="json") if own else server.recipe,
        "recipe_source": "run" if own else "server",
        "device": converter.client.address,
        "server_version": server.version,
    }
