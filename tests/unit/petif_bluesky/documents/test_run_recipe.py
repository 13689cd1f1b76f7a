"""What `conversion` in the metadata of a run may be, and what becomes of an unusable recipe in it."""

import json
from types import MappingProxyType
from typing import Any

import pytest
from pydantic import ValidationError

from petif_bluesky.documents.run_recipe import RunRecipe, recipe_of_run, refusable_recipe
from tango_server.messages import FrameRequest
from tango_server.recipe import Recipe
from tango_server.text import explain

TURNED = Recipe.preset("xdi", rotation=90)
SPELLINGS = {
    "recipe": TURNED,
    "fields": {"pixel_type": "int32", "rotation": 90},
    "fields on a preset": {"preset": "xdi", "rotation": 90},
    "json": '{"preset": "xdi", "rotation": 90}',
    "mapping of a catalogue": MappingProxyType({"preset": "xdi", "rotation": 90}),
}
IN_PLACE = {"preset": "xdi", "output": {"mode": "in_place"}}
WRONG: dict[str, tuple[Any, str]] = {
    "preset": ("by hand", "recipe: unknown preset 'by hand'"),
    "value": ({"rotation": 45}, r"recipe\.rotation: .*got 45"),
    "name": ({"rotatoin": 90}, r"recipe\.rotatoin: .*rotation"),
    "json": ('{"rotation": 90', "recipe: invalid JSON"),
    "number": (5, "recipe: not a recipe: 5"),
    "falsy number": (0, "recipe: not a recipe: 0"),
    "list": ([], r"recipe: not a recipe: \[\]"),
    "object": ({1, 2}, "recipe: not a recipe: "),
    "not a number": (float("nan"), "recipe: not a recipe: "),
}


@pytest.mark.parametrize("given", SPELLINGS.values(), ids=SPELLINGS)
def test_bare_or_with_other_keys_it_is_the_same_recipe(given: Any) -> None:
    assert recipe_of_run(given) == RunRecipe(TURNED, {})
    assert recipe_of_run({"recipe": given, "note": "as last week"}) == RunRecipe(TURNED, {"note": "as last week"})


@pytest.mark.parametrize("nothing", [None, "", {}])
def test_nothing_is_no_recipe(nothing: Any) -> None:
    assert recipe_of_run(nothing) == RunRecipe(None, {})


def test_empty_recipe_beside_other_keys_is_none_but_no_fields_are_the_defaults() -> None:
    assert [recipe_of_run({"recipe": given, "note": 1}).recipe for given in (None, "", {})] == [None, None, Recipe()]


@pytest.mark.parametrize(("given", "words"), WRONG.values(), ids=WRONG)
def test_unusable_recipe_is_refused_here_and_by_the_server_alike(given: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"conversion.*{words}.*other metadata"):
        recipe_of_run(given)
    with pytest.raises(ValueError, match=f"conversion.*{words}"):
        recipe_of_run({"recipe": given, "note": 1})
    sent = json.loads(json.dumps(refusable_recipe({"recipe": given}), allow_nan=False))
    with pytest.raises(ValidationError) as refused:
        FrameRequest.model_validate({"source": "/raw/a.tif", "recipe": sent})
    assert explain(refused.value).startswith(words.replace("\\", "").partition(".*")[0])


def test_other_metadata_alone_are_no_recipe_but_a_misspelled_field_is_an_error() -> None:
    assert recipe_of_run({"note": "as last week"}) == RunRecipe(None, {"note": "as last week"})
    with pytest.raises(ValueError, match=r"conversion.*recipe\.rotatoin: unknown name.*other metadata"):
        recipe_of_run({"rotatoin": 90})


@pytest.mark.parametrize("given", [IN_PLACE, json.dumps(IN_PLACE), Recipe.parse(IN_PLACE)])
def test_in_place_needs_allow_in_place(given: Any) -> None:
    with pytest.raises(ValueError, match=r"conversion.*recipe\.output.*in place.*allow_in_place"):
        recipe_of_run({"recipe": given})
    sent = json.loads(json.dumps(refusable_recipe(given)))
    assert Recipe.parse(sent) == Recipe.parse(IN_PLACE), "the server refuses it for a frame of a run"
    allowed = {"preset": "xdi", "output": {"mode": "in_place", "allow_in_place": True}}
    assert recipe_of_run(allowed).recipe == Recipe.parse(allowed)
