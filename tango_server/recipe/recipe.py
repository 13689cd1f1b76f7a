"""What to do to a frame: rotate, flip, convert the pixel type, write.

A recipe is complete in itself, immutable, hashable and plain JSON, so that it can stand in a run's start document, in
a ledger and in a file's own tags:

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

from pydantic import BeforeValidator, ValidationError, model_validator

from tango_server.recipe.base import Frozen
from tango_server.recipe.esperanto import Esperanto
from tango_server.recipe.output import NewFile, Output
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
    """What to do to a frame, in this order.

    1. rotate by `rotation` degrees counter-clockwise (as `numpy.rot90`), seen with row 0 on top
    2. flip along `flip`: none, axis 0 (up-down), axis 1 (left-right) or both (as `numpy.flip`)
    3. convert to `pixel_type` (None keeps the source's). Float to integer truncates toward zero, or rounds half to even
       with `rounding="nearest"`; integer targets saturate, NaN becomes `invalid_value`, negatives become 0 for unsigned
       types; float targets keep NaN and Inf
    4. write in `format`, losslessly compressed by `compression`, where `output` says

    ESPERANTO frames hold int32, and `esperanto` says where their angles and geometry come from.
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

    @model_validator(mode="before")
    @classmethod
    def _spelled_out(cls, given: Any) -> Any:
        """Return the fields that are meant, with what a recipe for ESPERANTO frames has in any case."""
        fields = _fields_of(given)
        if not isinstance(fields, dict) or fields.get("format") != "esperanto":
            return fields
        own = {"pixel_type": "int32", "esperanto": {}}
        return {**fields, **{name: value for name, value in own.items() if fields.get(name) is None}}

    @model_validator(mode="after")
    def _fit_the_format(self) -> Self:
        if self.format == "tiff":
            if self.esperanto is not None:
                raise ValueError('esperanto: found it with the format "tiff"; expected the format "esperanto"')
            return self
        found = {
            "pixel_type": (self.pixel_type, "int32"),
            "compression": (self.compression, "none"),
            "output.mode": (self.output.mode, "new"),
        }
        for name, (value, expected) in found.items():
            if value != expected:
                raise ValueError(f'{name}: found "{value}" with the format "esperanto"; expected "{expected}"')
        return self

    @classmethod
    def parse(cls, given: Any) -> Self:
        """Return the recipe that somebody has written down, in whatever form.

        A `Recipe`, its fields, JSON text of them, the name of a preset, or fields on top of a preset:

        >>> spellings = ["xdi", '{"preset": "xdi"}', {"pixel_type": "int32"}, Recipe.preset("xdi")]
        >>> {Recipe.parse(each).hash for each in spellings} == {Recipe.preset("xdi").hash}
        True
        >>> Recipe.parse({"preset": "xdi", "rotation": 90}) == Recipe.preset("xdi", rotation=90)
        True

        Raises
        ------
        ValueError
            if it is none of these; with what is wrong with each field.

        """
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise ValueError(f"recipe: {explain(error, cls.model_fields)}") from error

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """Return the preset `name` (`xdi`, `xdi-unsigned` or `esperanto`) with `changes` on top.

        Raises
        ------
        ValueError
            for an unknown preset, or (as pydantic's `ValidationError`) for a field that doesn't fit.

        """
        return cls.model_validate({"preset": name, **changes})

    @property  # not cached: a copy with another field would keep the cached value
    def hash(self) -> str:
        """16 hexadecimal digits that stand for the whole recipe, the same on every machine."""
        return _digest(self.model_dump_json(exclude=self._foreign()))

    @property
    def content_hash(self) -> str:
        """16 hexadecimal digits that stand for what the recipe does to a frame's content, wherever it is put."""
        return _digest(self.model_dump_json(exclude=self._foreign("output")))

    def content_fields(self) -> dict[str, Any]:
        """Return the fields that decide a frame's content, as plain JSON."""
        return self.model_dump(mode="json", exclude=self._foreign("output"))

    def _foreign(self, *left_out: str) -> set[str]:
        """Return what is no part of a hash; a TIFF's has nothing of ESPERANTO, so that it stays what it ever was."""
        return set(left_out) if self.esperanto is not None else {*left_out, "esperanto"}

    def output_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return the (rows, columns) of the output for a source of `shape` (rows, columns)."""
        rows, columns = shape
        return (columns, rows) if self.rotation in {90, 270} else (rows, columns)


PRESETS: dict[str, dict[str, Any]] = {
    "xdi": {"pixel_type": "int32"},
    "xdi-unsigned": {"pixel_type": "uint32"},
    # -1 as eiger2crysalis has it for masked pixels; turned by 180 degrees, since CrysAlis wants row 0 at the bottom and
    # column 0 at the left, seen from the sample.
    "esperanto": {"format": "esperanto", "rotation": 180, "invalid_value": -1},
}


def _fields_of(given: Any) -> Any:
    """Return the fields of a recipe that is given as text, or on top of a preset; anything else as it is."""
    if isinstance(given, str):
        text = given.strip()
        try:
            given = json.loads(text) if text.startswith("{") else {"preset": text}
        except (ValueError, RecursionError) as error:
            raise ValueError(f"no valid JSON ({error})") from error
    if not isinstance(given, Mapping | Recipe):
        raise ValueError(  # noqa: TRY004 - a value that a user has written
            f"found {reprlib.repr(given)}; expected a Recipe, its fields as a dict or JSON, or the name of a preset "
            f"({', '.join(PRESETS)})"
        )
    if isinstance(given, Recipe) or "preset" not in given:
        return given
    fields = dict(given)
    name = fields.pop("preset")
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(f"no preset is called {name!r}; the presets are {', '.join(PRESETS)}")
    return {**PRESETS[name], **fields}


@lru_cache(maxsize=256)  # each frame asks for those of its recipe
def _digest(text: str) -> str:
    text = json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
