r"""Numbered file names from templates in the style of C, Python's `%` and `str.format`.

Templates come from documents, so only numbers and strings are filled in, and widths are limited to save memory.

>>> printf_namer("%s%s_%6.6d.tiff", ("/data/", "a"))(7)
'/data/a_000007.tiff'
>>> format_namer("a_{:06d}.tiff")(7), format_namer("%s%s_%3.3d.tif", "b")(7), format_namer("literal.tif")(7)
('a_000007.tiff', 'b_007.tif', 'literal.tif')
"""

import re
from collections.abc import Callable
from string import Formatter

Namer = Callable[[int], str]
"""Returns the name of the file with a given number."""

_CONVERSION = re.compile(r"%(?:%|[-+ #0]*\d{0,3}(?:\.\d{1,3})?[hl]*[sdiu])")
_NUMBER = re.compile(r"%[-+ #0]*\d{0,3}(?:\.\d{1,3})?[hl]*[diu]")
_SPEC = re.compile(r"(?:[^{}]?[<>=^])?[-+ ]?\d{0,3}d?")


def printf_namer(template: str, words: tuple[str, str]) -> Namer:
    """Return the function for areaDetector names: `template % (folder, filename, number)`.

    As in C, a template may use fewer than three arguments.

    Raises
    ------
    ValueError
        if the template is invalid.

    """
    conversions = [conversion for conversion in _CONVERSION.findall(template) if conversion != "%%"]
    if "%" in _CONVERSION.sub("", template) or len(conversions) > len(words) + 1:
        raise ValueError(f"template {template!r} is invalid")

    def name(number: int) -> str:
        return template % (*words, number)[: len(conversions)]

    try:
        name(0)
    except TypeError as error:
        raise ValueError(f"template {template!r} is invalid: {error}") from error
    return name


def format_namer(template: str, filename: str = "") -> Namer:
    """Return the function for stream resource names: `template.format(number)`, or `%s%s_%06d.tif` with a file name.

    Of several `%s`, the first is the file name and the others are empty, as in bluesky's consolidators.

    Raises
    ------
    ValueError
        if the template is invalid.

    """
    first, *others = template.split("%s")
    if "{" not in template:
        text = first + (filename if others else "") + "".join(others)
        return lambda number: _NUMBER.sub(lambda found: found[0] % number, text)
    escaped = filename.replace("{", "{{").replace("}", "}}")
    form = first + (escaped if others else "") + "".join(others)
    for _, field, spec, conversion in Formatter().parse(form):
        if field is not None and (field not in {"", "0"} or conversion or not _SPEC.fullmatch(spec or "")):
            raise ValueError(f"template {template!r} is invalid")

    def name(number: int) -> str:
        return form.format(number)

    try:
        name(0)
    except IndexError as error:  # more than one field
        raise ValueError(f"template {template!r} is invalid: {error}") from error
    return name
