"""What a recipe may say, and that it is complete in itself: JSON, hashable, immutable."""

import json
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tango_server.recipe import Compression, Flip, InPlace, NewFile, OnExisting, PixelType, Recipe, Rotation, Rounding

FOLDERS = st.none() | st.sampled_from(["/data/out", "/data/M\u00fcller \u03a9"])
OUTPUTS = st.builds(NewFile, folder=FOLDERS, on_existing=st.sampled_from(get_args(OnExisting))) | st.builds(
    InPlace, allow_in_place=st.booleans()
)
RECIPES = st.builds(
    Recipe,
    rotation=st.sampled_from(get_args(Rotation)),
    flip=st.sampled_from(get_args(Flip)),
    pixel_type=st.none() | st.sampled_from(get_args(PixelType)),
    rounding=st.sampled_from(get_args(Rounding)),
    invalid_value=st.integers(-2, 2),
    compression=st.sampled_from(get_args(Compression)),
    output=OUTPUTS,
)
CHANGES: list[dict[str, Any]] = [
    {"rotation": 180},
    {"flip": "0"},
    {"pixel_type": "uint32"},
    {"rounding": "nearest"},
    {"invalid_value": -1},
    {"compression": "zstd"},
    {"format": "esperanto"},
    {"format": "esperanto", "esperanto": {"omega": "omega_readback"}},
    {"output": {"mode": "new", "folder": "/data/out"}},
    {"output": {"mode": "new", "on_existing": "skip"}},
    {"output": {"mode": "new", "template": "{stem}_{index}"}},
    {"output": {"mode": "in_place"}},
    {"output": {"mode": "in_place", "backup": True}},
]


@given(recipe=RECIPES)
def test_a_recipe_survives_json(recipe: Recipe) -> None:
    again = Recipe.model_validate_json(recipe.model_dump_json())
    assert again == recipe
    assert (again.hash, again.content_hash) == (recipe.hash, recipe.content_hash)


@given(one=RECIPES, other=RECIPES)
def test_recipes_are_equal_exactly_if_their_hashes_are(one: Recipe, other: Recipe) -> None:
    assert (one == other) == (one.hash == other.hash)
    assert len({one, other}) == (1 if one == other else 2)


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_field_changes_the_hash_and_all_but_the_place_change_the_content_hash(change: dict[str, Any]) -> None:
    plain, changed = Recipe.preset("xdi"), Recipe.preset("xdi", **change)
    assert changed.hash != plain.hash
    assert (changed.content_hash != plain.content_hash) == ("output" not in change)


def test_a_hash_does_not_depend_on_how_the_recipe_was_written() -> None:
    long = Recipe.model_validate_json(
        '{"output": {"on_existing": "replace_own", "folder": null, "mode": "new"}, "pixel_type": "int32", "flip": 1, '
        '"rotation": 0}'
    )
    short = Recipe.preset("xdi", flip="1")
    assert (long.hash, long.content_hash) == (short.hash, short.content_hash)


@pytest.mark.parametrize("name", ["hash", "content_hash"])
def test_a_hash_is_sixteen_hexadecimal_digits(name: str) -> None:
    digits = getattr(Recipe(), name)
    assert len(digits) == 16
    int(digits, 16)


def test_a_changed_copy_has_the_hash_of_what_it_says() -> None:
    recipe = Recipe()
    before = (recipe.hash, recipe.content_hash)
    copy = recipe.model_copy(update={"rotation": 90})
    assert (copy.hash, copy.content_hash) == (Recipe(rotation=90).hash, Recipe(rotation=90).content_hash)
    assert (recipe.hash, recipe.content_hash) == before


def test_asking_for_the_hash_changes_neither_the_recipe_nor_its_json() -> None:
    recipe = Recipe.preset("xdi")
    untouched = recipe.model_dump_json()
    assert recipe.hash != recipe.content_hash
    assert recipe == Recipe.preset("xdi")
    assert recipe.model_dump_json() == untouched


def test_a_recipe_is_plain_json() -> None:
    fields = json.loads(Recipe.preset("xdi", rotation=90, flip="1").model_dump_json())
    assert (fields["rotation"], fields["flip"], fields["pixel_type"], fields["format"]) == (90, "1", "int32", "tiff")
    assert (fields["output"]["mode"], fields["output"]["on_existing"]) == ("new", "replace_own")


@pytest.mark.parametrize(("name", "pixel_type"), [("xdi", "int32"), ("xdi-unsigned", "uint32")])
def test_a_preset_turns_nothing_and_writes_new_files_of_its_pixel_type(name: str, pixel_type: str) -> None:
    recipe = Recipe.preset(name)
    assert (recipe.rotation, recipe.flip, recipe.pixel_type) == (0, "none", pixel_type)
    assert (recipe.rounding, recipe.invalid_value, recipe.format) == ("truncate", 0, "tiff")
    assert recipe.output == NewFile(folder=None, on_existing="replace_own")


def test_changes_come_on_top_of_a_preset_and_leave_it_as_it_was() -> None:
    changed = Recipe.preset("xdi", rotation=270, flip="both", pixel_type="uint16")
    assert (changed.rotation, changed.flip, changed.pixel_type) == (270, "both", "uint16")
    assert Recipe.preset("xdi") == Recipe(pixel_type="int32")


def test_an_unknown_preset_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"'xds'.*xdi, xdi-unsigned"):
        Recipe.preset("xds")


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"rotation": 45}, "rotation"),
        ({"rotation": -90}, "rotation"),
        ({"rotation": 360}, "rotation"),
        ({"flip": 2}, "flip"),
        ({"flip": "up"}, "flip"),
        ({"flip": True}, "flip"),
        ({"flip": None}, "flip"),
        ({"pixel_type": "int64"}, "pixel_type"),
        ({"rounding": "up"}, "rounding"),
        ({"invalid_value": 1.5}, "invalid_value"),
        ({"invalid_value": None}, "invalid_value"),
        ({"format": "png"}, "format"),
        ({"compression": "jpeg"}, "compression"),
        ({"output": {"mode": "new", "template": ""}}, "output.new.template"),
        ({"output": {"mode": "new", "file_mode": "0999"}}, "output.new.file_mode"),
        ({"output": {"mode": "new", "file_mode": "4755"}}, "output.new.file_mode"),
        ({"output": {"mode": "new", "folder_mode": "4775"}}, "output.new.folder_mode"),
        ({"output": {"mode": "new", "folder": "/" * 4097}}, "output.new.folder"),
        ({"output": {"mode": "new", "template": "x" * 513}}, "output.new.template"),
        ({"output": {"mode": "new", "folder_mode": 775}}, "output.new.folder_mode"),
        ({"rotate": 90}, "rotate"),
        ({"output": "in_place"}, "output"),
        ({"output": None}, "output"),
        ({"output": {"mode": "over"}}, "output"),
        ({"output": {"mode": "new", "on_existing": "overwrite"}}, "output.new.on_existing"),
        ({"output": {"mode": "new", "allow_in_place": True}}, "output.new.allow_in_place"),
        ({"output": {"mode": "in_place", "folder": "/data/out"}}, "output.in_place.folder"),
    ],
    ids=str,
)
def test_what_a_recipe_can_not_say_is_refused_and_named(fields: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Recipe.preset("xdi", **fields)
    assert [".".join(map(str, fault["loc"])) for fault in caught.value.errors()] == [place]


@pytest.mark.parametrize(("axis", "flip"), [(0, "0"), (1, "1"), ("both", "both"), ("none", "none")])
def test_a_flip_axis_may_be_a_number(axis: object, flip: str) -> None:
    assert Recipe.model_validate({"flip": axis}).flip == flip


def test_an_output_without_a_mode_is_a_new_file() -> None:
    assert Recipe.model_validate({"output": {"folder": "/data/out"}}).output == NewFile(folder="/data/out")


def test_in_place_is_not_allowed_for_runs_unless_said() -> None:
    assert Recipe.model_validate({"output": {"mode": "in_place"}}).output == InPlace(allow_in_place=False)


def test_a_recipe_can_not_be_changed() -> None:
    recipe = Recipe()
    with pytest.raises(ValidationError, match="frozen"):
        recipe.rotation = 90  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        recipe.output.mode = "in_place"  # type: ignore[misc]


@given(recipe=RECIPES, rows=st.integers(1, 5), columns=st.integers(1, 5))
def test_the_output_shape_is_that_of_the_turned_array(recipe: Recipe, rows: int, columns: int) -> None:
    turned = np.rot90(np.zeros((rows, columns)), recipe.rotation // 90)
    assert recipe.output_shape((rows, columns)) == turned.shape
