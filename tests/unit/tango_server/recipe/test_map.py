"""The map of a recipe: what is refused, and that recipes without one are as before."""

from typing import Any

import pytest

from tango_server.recipe import Recipe

GRID = {"shape": [2, 3], "extents": [[0, 1], [0, 0.02]], "motors": ["y", "x"]}


def test_map_survives_json_and_is_no_part_of_the_content() -> None:
    recipe = Recipe.preset("xdi", map=GRID)
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert recipe.hash != Recipe.preset("xdi").hash
    assert recipe.content_hash == Recipe.preset("xdi").content_hash
    assert Recipe.preset("xdi", map={}).model_dump(mode="json")["map"] == {}
    assert "map" not in Recipe.preset("xdi").model_dump(mode="json")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"shape": [2]}, "of the same length"),
        ({"extents": []}, "of the same length"),
        ({"shape": [2, 0]}, "greater than or equal to 1"),
        ({"shape": [10**4, 10**4]}, "at most 100000 points"),
        ({"extents": [[0, 1], [3, 3]]}, "two different positions"),
        ({"extents": [[0, 1], [0, float("nan")]]}, "finite"),
        ({"motors": ["y", ""]}, "at least 1 character"),
        ({"snaking": True}, "snaking"),
    ],
)
def test_wrong_map_is_refused_by_name(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Recipe.parse({"map": {**GRID, **changes}})


@pytest.mark.parametrize("fields", [{"format": "esperanto"}, {"output": {"mode": "in_place"}}])
def test_map_of_other_outputs_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="map makes new TIFFs for XDI"):
        Recipe.parse({"map": {}, **fields})


def test_frames_combined_by_positions_make_maps_of_tiffs() -> None:
    combine = {"of": {"by": {"x": 1}}, "method": "sum"}
    assert Recipe(combine=combine).makes_maps
    assert not Recipe(combine={**combine, "of": "event"}).makes_maps
    assert not Recipe.preset("esperanto", combine=combine).makes_maps
