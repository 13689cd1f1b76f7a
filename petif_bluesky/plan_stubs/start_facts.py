"""The conversion metadata in the start document of a run."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from petif_bluesky.converter_base import ConverterBase
from petif_bluesky.documents.bookings import Booking
from petif_bluesky.documents.run_recipe import recipe_of_run
from tango_server.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose facts are on their way; `alone` if no other converter takes part in the run."""

    converter: ConverterBase
    alone: bool = False


_on_the_way: dict[int, Owner] = {}
"""Owners by the id of their facts, in messages that have not reached the RunEngine yet."""


@contextmanager
def on_their_way(facts: Mapping[str, Any], owner: Owner) -> Iterator[None]:
    """Let outer wrappers recognise these facts while the message with them passes through.

    They are known by identity: metadata copied from an earlier run may have the same keys.
    """
    _on_the_way[id(facts)] = owner
    try:
        yield
    finally:
        _on_the_way.pop(id(facts), None)


def place_of(converter: ConverterBase, metadata: Mapping[str, Any]) -> str | None:
    """Return the key for the facts of a converter in a run with this metadata from the plan and inner wrappers.

    None if they are there already, or the run is one of another converter alone.

    Raises
    ------
    ValueError
        if another one has the same name.

    """
    others = [owner for owner, _ in _owned(metadata)]
    if any(other.converter is converter or other.alone for other in others):
        return None
    if converter.name in {other.converter.name for other in others}:
        raise ValueError(
            f"{converter.name}: two converters have this name. Give each converter of a session its own name."
        )
    return Booking("", converter.name if others else "").key


def require_other_output(converter: ConverterBase, facts: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Raise `ValueError` if a converter of an inner wrapper would write the same files.

    Recipes that are not known yet, since the server has not answered, are not compared.
    """
    for other, theirs in _owned(metadata):
        if facts["recipe"] and theirs["recipe"]:
            refuse_shared_output(
                {other.converter.name: Recipe.parse(theirs["recipe"]), converter.name: Recipe.parse(facts["recipe"])}
            )


def _owned(metadata: Mapping[str, Any]) -> list[tuple[Owner, Mapping[str, Any]]]:
    """Return the facts on their way that inner wrappers have added to the metadata of a run."""
    return [(_on_the_way[id(value)], value) for value in metadata.values() if id(value) in _on_the_way]


def refuse_shared_output(recipes: Mapping[str, Recipe]) -> None:
    """Raise `ValueError` if the two recipes, by the name of the converter, write the same files."""
    (first, one), (second, other) = recipes.items()
    if one.shares_output(other):
        raise ValueError(
            f"converters {first!r} and {second!r} would write the same output files. Choose another output.folder, "
            "output.template or format in the recipe of one of them."
        )


def start_facts(converter: ConverterBase, recipe: Recipe | None, from_plan: Any) -> dict[str, Any]:
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
