"""A recipe as a sentence for people."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tango_server.recipe.recipe import Flip, Recipe

_FLIPPED: "dict[Flip, str]" = {
    "none": "not flipped",
    "0": "flipped up-down",
    "1": "flipped left-right",
    "both": "flipped both ways",
}


def turning_words(recipe: "Recipe") -> str:
    """Return how a recipe turns a frame.

    >>> from tango_server.recipe import Recipe
    >>> turning_words(Recipe.preset("xdi", rotation=90, flip="1"))
    'rotated by 90° counter-clockwise, flipped left-right'
    """
    turned = f"rotated by {recipe.rotation}° counter-clockwise" if recipe.rotation else "not rotated"
    return f"{turned}, {_FLIPPED[recipe.flip]}"


def recipe_words(recipe: "Recipe") -> str:
    """Return a summary of a recipe: orientation, pixel type, format.

    >>> from tango_server.recipe import Recipe
    >>> recipe_words(Recipe.preset("xdi", rotation=180))
    'rotated by 180° counter-clockwise, not flipped, as int32, in TIFF'
    """
    parts = [
        turning_words(recipe),
        f"as {recipe.pixel_type}" if recipe.pixel_type else "with the pixel type of the source",
        "in ESPERANTO" if recipe.format == "esperanto" else "in TIFF",
    ]
    if recipe.compression != "none":
        parts.append(f"compressed by {recipe.compression}")
    return ", ".join(parts)
