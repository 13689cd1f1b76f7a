"""Which frames a recipe combines, and how: what it may say, and what it refuses in words."""

from typing import Any

import pytest

from tango_server.recipe import Recipe


def combined(of: object, **changes: Any) -> Recipe:
    return Recipe.parse({"preset": "xdi", "combine": {"of": of, "method": "sum", **changes}})


@pytest.mark.parametrize("of", ["event", "run", {"every": 2}, {"every": 10_000}, {"by": {"y": 0, "x": 0.005}}])
def test_every_way_survives_json_and_is_hashable(of: object) -> None:
    recipe = combined(of)
    assert Recipe.parse(recipe.model_dump_json()) == recipe
    assert Recipe.parse(recipe.model_dump(mode="json")).hash == recipe.hash
    assert hash(recipe) == hash(combined(of))
    assert recipe.model_dump(mode="json")["combine"]["of"] == of


def test_order_of_keys_is_of_no_account() -> None:
    assert combined({"by": {"x": 1, "y": 2}}) == combined({"by": {"y": 2.0, "x": 1.0}})


def test_recipes_without_combine_keep_their_hash() -> None:
    assert Recipe.preset("xdi").hash == "af12bb752b59eeba"
    assert "combine" not in Recipe.preset("xdi").model_dump_json()
    assert "combine" not in Recipe.preset("xdi").content_fields()
    assert combined("run").hash != Recipe.preset("xdi").hash
    assert combined("run").content_hash != combined("run", method="mean").content_hash


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ({"every": 0}, "every must be a whole number from 2"),
        ({"every": 1}, "each frame is converted by itself"),
        ({"every": 10_001}, "10000"),
        ({"every": 2.5}, "whole number"),
        ({"every": True}, "whole number"),
        ({"by": {}}, "a tolerance for each of 1 to 16 keys"),
        ({"by": ["x"]}, "a tolerance for each"),
        ({"by": {"x": -1}}, "tolerance of 'x'"),
        ({"by": {"x": float("nan")}}, "tolerance of 'x'"),
        ({"by": {"x": 10**400}}, "tolerance of 'x'"),
        ({"by": {"x": "1"}}, "tolerance of 'x'"),
        ({"by": {"": 1}}, "no name of a key"),
        ({"every": 2, "by": {"x": 1}}, 'give "event", "run"'),
        ("frames", 'give "event", "run"'),
        (None, 'give "event", "run"'),
    ],
)
def test_wrong_groups_are_refused_in_words(of: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        combined(of)
    assert str(caught.value).startswith("recipe.combine.of: ")


@pytest.mark.parametrize("wrong", [{"method": "average"}, {"sigma": 0}, {"timeout": -1}, {"on_incomplete": "skip"}])
def test_wrong_values_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"recipe.combine.{next(iter(wrong))}: "):
        combined("run", **wrong)


def test_combining_in_place_is_refused() -> None:
    with pytest.raises(ValueError, match=r'combine.*"in_place"'):
        Recipe.parse({"combine": {"of": "run", "method": "sum"}, "output": {"mode": "in_place", "backup": True}})
