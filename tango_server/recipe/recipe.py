"""How to convert a frame: rotate, flip, convert the pixel type, write.

A recipe is complete, immutable, hashable and plain JSON, for a run's start document, a ledger or a file's tags:

>>> recipe = Recipe.preset("xdi", rotation=90, flip="1")
>>> recipe.rotation, recipe.flip, recipe.pixel_type
(90, '1', 'int32')
>>> Recipe.model_validate_json(recipe.model_dump_json()) == recipe
True
>>> recipe.output_shape((1024, 2048))
(2048, 1024)
"""

import hashlib
import json
import reprlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from tango_server.recipe.base import Frozen
from tango_server.recipe.combine import By, Combine
from tango_server.recipe.corrections import Corrections
from tango_server.recipe.esperanto import Esperanto
from tango_server.recipe.map import Map
from tango_server.recipe.output import InPlace, NewFile, Output
from tango_server.text import explain

Rotation = Literal[0, 90, 180, 270]
Flip = Literal["none", "0", "1", "both"]
PixelType = Literal["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
Rounding = Literal["truncate", "nearest"]
Compression = Literal["none", "deflate", "lzw", "zstd"]
Format = Literal["tiff", "esperanto"]


def _axis_as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Recipe(Frozen):
    """How to convert a frame, in this order.

    0. apply `corrections`, in the frame's own geometry, and `combine` several frames
    1. rotate by `rotation` degrees counter-clockwise (as `numpy.rot90`), seen with row 0 on top
    2. flip along `flip`: none, axis 0 (up-down), axis 1 (left-right) or both (as `numpy.flip`)
    3. convert to `pixel_type` (None keeps the source's). Float to integer truncates toward zero, or rounds half to even
       with `rounding="nearest"`; integer targets saturate, NaN becomes `invalid_value`, negatives become 0 for unsigned
       types; float targets keep NaN and Inf
    4. write in `format`, with lossless `compression`, to the place given by `output`

    With `map`, or frames combined by the positions of a grid scan, each point of the grid gets one output.
    ESPERANTO frames are int32, and `esperanto` has the sources of their angles and geometry.
    """

    rotation: Rotation = 0
    flip: Annotated[Flip, BeforeValidator(_axis_as_text)] = "none"
    pixel_type: PixelType | None = None
    rounding: Rounding = "truncate"
    invalid_value: int = 0
    format: Format = "tiff"
    compression: Compression = "none"
    esperanto: Esperanto | None = None
    output: Output = NewFile()
    corrections: Corrections | None = Field(default=None, exclude_if=lambda value: value is None)
    combine: Combine | None = Field(default=None, exclude_if=lambda value: value is None)
    map: Map | None = Field(default=None, exclude_if=lambda value: value is None)

    @model_validator(mode="before")
    @classmethod
    def _spelled_out(cls, given: Any) -> Any:
        """Return the fields of any form of a recipe, with the defaults for ESPERANTO frames."""
        fields = _fields_of(given)
        if not isinstance(fields, dict) or fields.get("format") != "esperanto":
            return fields
        own = {"pixel_type": "int32", "esperanto": {}}
        return {**fields, **{name: value for name, value in own.items() if fields.get(name) is None}}

    @model_validator(mode="after")
    def _fit_the_format(self) -> Self:
        if self.format == "tiff":
            if self.esperanto is not None:
                raise ValueError('esperanto needs the format "esperanto", not "tiff"')
            return self
        found = {
            "pixel_type": (self.pixel_type, "int32"),
            "compression": (self.compression, "none"),
            "output.mode": (self.output.mode, "new"),
        }
        for name, (value, expected) in found.items():
            if value != expected:
                raise ValueError(f'{name} must be "{expected}" for the format "esperanto", not "{value}"')
        return self

    @model_validator(mode="after")
    def _keeps_the_original(self) -> Self:
        if self.corrections is not None and isinstance(self.output, InPlace) and not self.output.backup:
            raise ValueError("corrections in place cannot be undone: set backup in output, or write new files")
        return self

    @model_validator(mode="after")
    def _combines_to_new_files(self) -> Self:
        if self.combine is not None and isinstance(self.output, InPlace):
            raise ValueError('combine makes one file of several: output.mode must be "new", not "in_place"')
        return self

    @model_validator(mode="after")
    def _maps_to_tiffs(self) -> Self:
        if self.map is not None and (isinstance(self.output, InPlace) or self.format != "tiff"):
            raise ValueError('map makes new TIFFs for XDI: it needs the format "tiff" and output.mode "new"')
        return self

    @classmethod
    def parse(cls, given: Any) -> Self:
        """Return a recipe from any of its forms.

        A `Recipe`, its fields, the name of a preset, a preset with changed fields, or any of these as JSON text:

        >>> spellings = ["xdi", '{"preset": "xdi"}', {"pixel_type": "int32"}, Recipe.preset("xdi")]
        >>> {Recipe.parse(each).hash for each in spellings} == {Recipe.preset("xdi").hash}
        True
        >>> Recipe.parse({"preset": "xdi", "rotation": 90}) == Recipe.preset("xdi", rotation=90)
        True

        Raises
        ------
        ValueError
            if it is none of these; the message names each wrong field, and is the same wherever a recipe is given.

        """
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise ValueError(explain(error, cls.model_fields, within="recipe")) from error

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """Return the preset `name` (`xdi`, `xdi-unsigned` or `esperanto`) with `changes`.

        Raises
        ------
        ValueError
            for an unknown preset, or (as pydantic's `ValidationError`) for an invalid field.

        """
        return cls.model_validate({"preset": name, **changes})

    def fit_for_run(self) -> Self:
        """Return this recipe for the frames of a bluesky run.

        Raises
        ------
        ValueError
            if it converts in place without `allow_in_place`: the files would no longer match the documents of the run.

        """
        if isinstance(self.output, InPlace) and not self.output.allow_in_place:
            raise ValueError(
                "recipe.output: cannot convert the frames of a run in place: the run's documents describe the raw "
                "files. Write new files, or set allow_in_place in the recipe's output"
            )
        return self

    @property  # not cached: a copy with another field would keep the cached value
    def hash(self) -> str:
        """The hash of the whole recipe, 16 hexadecimal digits, the same on every machine."""
        return _digest(self.model_dump_json(exclude=self._foreign()))

    @property
    def content_hash(self) -> str:
        """The hash of the recipe without `output`, 16 hexadecimal digits: what it does to a frame's content."""
        return _digest(self.model_dump_json(exclude=self._foreign("output", "map")))

    def content_fields(self) -> dict[str, Any]:
        """Return the fields that determine a frame's content, as plain JSON."""
        return self.model_dump(mode="json", exclude=self._foreign("output", "map"))

    def _foreign(self, *left_out: str) -> set[str]:
        """Return the fields to leave out of a hash; `esperanto` for TIFFs, whose hash must not change."""
        return set(left_out) if self.esperanto is not None else {*left_out, "esperanto"}

    @property
    def makes_maps(self) -> bool:
        """Whether its outputs may be the points of a map.

        >>> Recipe(map={}).makes_maps, Recipe().makes_maps
        (True, False)
        """
        by_positions = self.combine is not None and isinstance(self.combine.of, By) and self.format == "tiff"
        return self.map is not None or by_positions

    def shares_output(self, other: "Recipe") -> bool:
        """Return whether both write the same file for a frame.

        >>> xdi = Recipe.preset("xdi")
        >>> xdi.shares_output(Recipe.preset("xdi", rotation=90)), xdi.shares_output(Recipe.preset("esperanto"))
        (True, False)
        """

        def place(recipe: Recipe) -> tuple[object, ...]:
            new = recipe.output if isinstance(recipe.output, NewFile) else None
            return (new.folder, new.template, recipe.format) if new else ("in_place",)

        return place(self) == place(other)

    def output_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return the (rows, columns) of the output for a source of `shape` (rows, columns)."""
        rows, columns = shape
        return (columns, rows) if self.rotation in {90, 270} else (rows, columns)


_JSON_BEGINS = ("{", "[", '"')

PRESETS: dict[str, dict[str, Any]] = {
    "xdi": {"pixel_type": "int32"},
    "xdi-unsigned": {"pixel_type": "uint32"},
    # -1 for masked pixels as in eiger2crysalis; turned by 180 degrees, since CrysAlis needs row 0 at the bottom and
    # column 0 on the left, seen from the sample.
    "esperanto": {"format": "esperanto", "rotation": 180, "invalid_value": -1},
}


RecipeField = Annotated[Recipe, BeforeValidator(Recipe.parse)]
"""A field for a recipe in any of its forms, with the errors of `Recipe.parse`."""


def _fields_of(given: Any) -> Any:
    """Return the fields of a recipe given as text or with a preset; a `Recipe` unchanged."""
    if isinstance(given, str):
        given = _from_text(given.strip())
    if isinstance(given, Recipe):
        return given
    if not isinstance(given, Mapping):
        raise ValueError(  # noqa: TRY004 - a value that a user has written
            f"not a recipe: {reprlib.repr(given)}. Give a Recipe, its fields as a dict or JSON, or a preset's name "
            f"({', '.join(PRESETS)})"
        )
    fields = _plain(given)
    if "preset" not in fields:
        return fields
    name = fields.pop("preset")
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(f"unknown preset {reprlib.repr(name)}. The presets are {', '.join(PRESETS)}")
    return {**PRESETS[name], **fields}


def _from_text(text: str) -> Any:
    """Return the value of JSON text; of any other text, the preset with that name."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.startswith(_JSON_BEGINS):
            raise ValueError(f"invalid JSON ({error}), got {reprlib.repr(text)}") from error
        value = text
    return {"preset": value} if isinstance(value, str) else value


def _plain(fields: Mapping[str, Any], levels: int = 2) -> dict[str, Any]:
    """Return mappings of other types, such as those of a catalogue, as dicts, down to the circles of `esperanto`."""
    return {
        name: _plain(value, levels - 1) if levels and isinstance(value, Mapping) else value
        for name, value in fields.items()
    }


@lru_cache(maxsize=256)  # used for each frame
def _digest(text: str) -> str:
    text = json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
