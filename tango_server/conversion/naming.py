"""The name of an output, made from a template and the fields of its frame.

>>> from pathlib import Path
>>> named_by("{sample}_{index:05d}", Path("pattern-00017.tif"), {"sample": "CeO2"})
'CeO2_00017.tif'
"""

import re
from collections.abc import Mapping
from pathlib import Path
from string import Formatter

from tango_server.conversion.errors import NameTemplateError

_LAST_NUMBER = re.compile(r"(\d{1,18})(?!.*\d)")
_WIDE = re.compile(r"\d{4}")  # a width that no file name has
_SUFFIXES = {".tif", ".tiff"}
_LONGEST_NAME = 200  # bytes; file systems take 255, and the temporary file's name is longer
_UNFIT = re.compile(r"[\ud800-\udfff\x00-\x1f/\\:*?\"<>|]")


class _Fields(Formatter):
    """Plain fields only: no attributes, no items, no widths of millions; a template can't reach into objects."""

    def format_field(self, value: object, format_spec: str) -> str:
        if _WIDE.search(format_spec):
            raise ValueError(f"{format_spec!r} is too wide for a file name")
        return format(value, format_spec)

    def get_field(self, field_name: str, args: object, kwargs: Mapping[str, object]) -> tuple[object, str]:
        del args
        return kwargs[field_name], field_name


def named_by(template: str, source: Path, fields: Mapping[str, object]) -> str:
    """Return the file name that `template` makes for a frame.

    `fields` hold `run`, `seq_num` and metadata; `stem` and `index` (the last number in it) come from the source's name.

    Raises
    ------
    NameTemplateError
        if a field is missing, does not fit its format, or the result is no file name on every operating system.
    """
    number = _LAST_NUMBER.search(source.stem)
    known = {**fields, "stem": source.stem, **({"index": int(number[1])} if number else {})}
    try:
        name = _Fields().vformat(template, (), known)
    except KeyError as error:
        raise NameTemplateError(
            source,
            f"no field {error} for the template {template!r}",
            f"one of {', '.join(sorted(known))}",
            "Correct the template, or let the frame's metadata bring the field.",
        ) from None
    except (ValueError, TypeError, OverflowError) as error:
        raise NameTemplateError(
            source, f"the template {template!r} does not fit ({error})", "formats like {index:05d}", "Correct it."
        ) from None
    if Path(name).suffix.lower() not in _SUFFIXES:
        name += ".tif"
    if _UNFIT.search(name) or name.startswith(".") or len(name.encode("utf-8", "replace")) > _LONGEST_NAME:
        raise NameTemplateError(
            source,
            f"the template {template!r} makes {name[:_LONGEST_NAME]!a}",
            f"a file name of at most {_LONGEST_NAME} bytes, without separators, that is none of a hidden file",
            "Correct the template, or the metadata that it takes.",
        )
    return name
