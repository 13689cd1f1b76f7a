"""What a recipe may say, and that it is complete in itself: JSON, hashable, immutable."""

import json
from types import MappingProxyType
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tango_server.messages import FrameRequest
from tango_server.recipe import Compression, Flip, InPlace, NewFile, OnExisting, PixelType, Recipe, Rotation, Rounding
from tango_server.settings import Settings
from tango_server.text import explain

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


TURNED = Recipe.preset("xdi", rotation=90)
SPELLINGS = {
    "recipe": TURNED,
    "fields": {"pixel_type": "int32", "rotation": 90},
    "on a preset": {"preset": "xdi", "rotation": 90},
    "json": '{"pixel_type": "int32", "rotation": 90}',
    "json on a preset": ' {"preset": "xdi", "rotation": 90}',
    "mapping of a catalogue": MappingProxyType({"preset": "xdi", "rotation": 90, "output": MappingProxyType({})}),
    "whole json": TURNED.model_dump_json(),
}
WRONG = {
    "field": ({"rotatoin": 90}, "rotatoin.*did you mean rotation"),
    "value": ({"rotation": 45}, "rotation: .*got 45"),
    "preset": ("xid", "preset 'xid'.*xdi, xdi-unsigned"),
    "preset of fields": ({"preset": ["xdi"]}, r"preset \['xdi'\]"),
    "json": ('{"rotation": 90', "invalid JSON"),
    "nested": ('{"a":' * 100_000, "invalid JSON"),
    "kind": (45, "45.*xdi, xdi-unsigned, esperanto"),
    "none": (None, "None"),
}


@pytest.mark.parametrize("given", SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_is_the_same_recipe(given: Any) -> None:
    settings = {"read_roots": ["/data"], "state_dir": "/state", "recipe": given}
    found = {
        "parse": Recipe.parse(given),
        "request": FrameRequest.model_validate({"source": "/data/a.tif", "recipe": given}).recipe,
        "settings": Settings.model_validate(settings).recipe,
    }
    assert {where: recipe.hash if recipe else "" for where, recipe in found.items()} == dict.fromkeys(
        found, TURNED.hash
    )
    assert Recipe.parse("xdi") == Recipe.parse('"xdi"') == Recipe.parse({"preset": "xdi"}) == Recipe.preset("xdi")


@pytest.mark.parametrize(("given", "words"), WRONG.values(), ids=WRONG)
def test_what_is_no_recipe_is_refused_in_the_same_words(given: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"^recipe[.:].*{words}") as caught:
        Recipe.parse(given)
    with pytest.raises(ValidationError) as of_settings:
        Settings.model_validate({"read_roots": ["/data"], "state_dir": "/state", "recipe": given})
    assert explain(of_settings.value, Settings.model_fields) == str(caught.value)
    if given is not None:
        with pytest.raises(ValidationError) as of_request:
            FrameRequest.model_validate({"source": "/data/a.tif", "recipe": given})
        assert explain(of_request.value) == str(caught.value)


@pytest.mark.parametrize(
    ("recipe", "whole", "content"),
    [
        (Recipe(), "657648d0bd47aa5b", "82fd1f8c13bd4101"),
        (Recipe.preset("xdi", rotation=90, flip="1"), "f0300b1403f6ac06", "2f5226dc5a09f849"),
        (Recipe.preset("esperanto"), "506713a8112c44e5", "27f87927836a5810"),
        (Recipe.preset("xdi", output=InPlace(backup=True)), "83e3d9d2146fc105", "688dbf81e6687a75"),
    ],
)
def test_hashes_are_those_of_2db7c4c(recipe: Recipe, whole: str, content: str) -> None:
    assert (recipe.hash, recipe.content_hash) == (whole, content)


@settings(max_examples=40)
@given(recipe=RECIPES)
def test_a_recipe_survives_json(recipe: Recipe) -> None:
    again = Recipe.model_validate_json(recipe.model_dump_json())
    assert again == recipe
    assert (again.hash, again.content_hash) == (recipe.hash, recipe.content_hash)


@settings(max_examples=60)
@given(one=RECIPES, other=RECIPES)
def test_recipes_are_equal_exactly_if_their_hashes_are(one: Recipe, other: Recipe) -> None:
    assert (one == other) == (one.hash == other.hash)
    assert len({one, other}) == (1 if one == other else 2)


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_each_field_but_the_place_changes_the_content_hash(change: dict[str, Any]) -> None:
    plain, changed = Recipe.preset("xdi"), Recipe.preset("xdi", **change)
    assert changed.hash != plain.hash
    assert (changed.content_hash != plain.content_hash) == ("output" not in change)


def test_a_hash_does_not_depend_on_how_the_recipe_was_written() -> None:
    long = Recipe.model_validate_json(
        '{"output": {"on_existing": "replace_own", "folder": null, "mode": "new"}, "pixel_type": "int32", "flip": 1, '
        '"rotation": 0}'
    )
    short = Recipe.preset("xdi", flip="1")
    untouched = short.model_dump_json()
    assert (long.hash, long.content_hash) == (short.hash, short.content_hash)
    assert short.hash != short.content_hash
    for digits in (short.hash, short.content_hash):
        assert len(digits) == 16
        int(digits, 16)
    assert (short, short.model_dump_json()) == (Recipe.preset("xdi", flip="1"), untouched)


def test_a_changed_copy_has_the_hash_of_what_it_says() -> None:
    recipe = Recipe()
    before = (recipe.hash, recipe.content_hash)
    copy = recipe.model_copy(update={"rotation": 90})
    assert (copy.hash, copy.content_hash) == (Recipe(rotation=90).hash, Recipe(rotation=90).content_hash)
    assert (recipe.hash, recipe.content_hash) == before


def test_a_recipe_is_plain_json() -> None:
    fields = json.loads(Recipe.preset("xdi", rotation=90, flip="1").model_dump_json())
    assert (fields["rotation"], fields["flip"], fields["pixel_type"], fields["format"]) == (90, "1", "int32", "tiff")
    assert (fields["output"]["mode"], fields["output"]["on_existing"]) == ("new", "replace_own")


@pytest.mark.parametrize(("name", "pixel_type"), [("xdi", "int32"), ("xdi-unsigned", "uint32")])
def test_a_preset_turns_nothing_and_sets_the_pixel_type(name: str, pixel_type: str) -> None:
    recipe = Recipe.preset(name)
    assert (recipe.rotation, recipe.flip, recipe.pixel_type) == (0, "none", pixel_type)
    assert (recipe.rounding, recipe.invalid_value, recipe.format) == ("truncate", 0, "tiff")
    assert recipe.output == NewFile(folder=None, on_existing="replace_own")


def test_a_preset_takes_changes_and_an_unknown_one_is_refused() -> None:
    changed = Recipe.preset("xdi", rotation=270, flip="both", pixel_type="uint16")
    assert (changed.rotation, changed.flip, changed.pixel_type) == (270, "both", "uint16")
    assert Recipe.preset("xdi") == Recipe(pixel_type="int32")
    with pytest.raises(ValueError, match=r"'xds'.*xdi, xdi-unsigned"):
        Recipe.preset("xds")


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("rotation", [45, -90, 360]),
        ("flip", [2, "up", True, None]),
        ("pixel_type", ["int64"]),
        ("rounding", ["up"]),
        ("invalid_value", [1.5, None]),
        ("format", ["png"]),
        ("compression", ["jpeg"]),
        ("rotate", [90]),
        ("output", ["in_place", None, {"mode": "over"}]),
        ("output.new.template", ["", "x" * 513]),
        ("output.new.file_mode", ["0999", "4755"]),
        ("output.new.folder_mode", ["4775", 775]),
        ("output.new.folder", ["/" * 4097]),
        ("output.new.on_existing", ["overwrite"]),
        ("output.new.allow_in_place", [True]),
        ("output.in_place.folder", ["/data/out"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_recipe_can_not_say_is_refused_and_named(field: str, values: list[Any]) -> None:
    place, _, mode = field.rpartition(".")[0].partition(".")
    name = field.rpartition(".")[2]
    for value in values:
        with pytest.raises(ValidationError) as caught:
            Recipe.preset("xdi", **({place: {"mode": mode, name: value}} if place else {name: value}))
        assert [".".join(map(str, fault["loc"])) for fault in caught.value.errors()] == [field], value


@pytest.mark.parametrize(
    ("fields", "same"),
    [
        ({"flip": 0}, {"flip": "0"}),
        ({"flip": 1}, {"flip": "1"}),
        ({"flip": "both"}, {"flip": "both"}),
        ({"flip": "none"}, {}),
        ({"output": {"folder": "/data/out"}}, {"output": NewFile(folder="/data/out")}),
        ({"output": {"mode": "in_place"}}, {"output": InPlace(allow_in_place=False)}),
    ],
    ids=str,
)
def test_a_short_form_means_the_full_one(fields: dict[str, Any], same: dict[str, Any]) -> None:
    assert Recipe.model_validate(fields) == Recipe(**same)


def test_a_recipe_can_not_be_changed() -> None:
    recipe = Recipe()
    with pytest.raises(ValidationError, match="frozen"):
        recipe.rotation = 90  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        recipe.output.mode = "in_place"  # type: ignore[misc]


@settings(max_examples=40)
@given(recipe=RECIPES, rows=st.integers(1, 5), columns=st.integers(1, 5))
def test_the_output_shape_is_that_of_the_turned_array(recipe: Recipe, rows: int, columns: int) -> None:
    turned = np.rot90(np.zeros((rows, columns)), recipe.rotation // 90)
    assert recipe.output_shape((rows, columns)) == turned.shape
