"""The name of an output, made from a template and the fields of its frame.

>>> from pathlib import Path
>>> named_by("{sample}_{index:05d}", Path("pattern-00017.tif"), {"sample": "CeO2"})
'CeO2_00017.tif'

CrysAlis opens frames that are called `name_1_index.esperanto`, all of a scan in one folder of their own:

>>> esperanto_path(Path("pattern-00017.tif"), {"run": "3f9c2a1b-7d91", "seq_num": 2}).as_posix()
'pattern_3f9c2a1b/pattern_1_2.esperanto'
>>> esperanto_path(Path("pattern-00017.tif"), {}).as_posix()
'pattern/pattern_1_17.esperanto'
"""

import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from string import Formatter

from tango_server.conversion.errors import NameTemplateError
from tango_server.recipe import Format

_LAST_NUMBER = re.compile(r"(\d{1,18})(?!.*\d)")
_WIDE = re.compile(r"\d{4}")  # a width that no file name has
_SUFFIXES: dict[Format, tuple[str, ...]] = {"tiff": (".tif", ".tiff"), "esperanto": (".esperanto",)}
_SERIES = re.compile(r"(?P<name>.*?)[-_. ]*\d{1,18}\D*$")
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


def named_by(template: str, source: Path, fields: Mapping[str, object], file_format: Format = "tiff") -> str:
    """Return the file name that `template` makes for a frame; it gets the ending of its format if it has none.

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
    endings = _SUFFIXES[file_format]
    if Path(name).suffix.lower() not in endings:
        name += endings[0]
    if _UNFIT.search(name) or name.startswith(".") or len(name.encode("utf-8", "replace")) > _LONGEST_NAME:
        raise NameTemplateError(
            source,
            f"the template {template!r} makes {name[:_LONGEST_NAME]!a}",
            f"a file name of at most {_LONGEST_NAME} bytes, without separators, that is none of a hidden file",
            "Correct the template, or the metadata that it takes.",
        )
    return name


def esperanto_path(source: Path, fields: Mapping[str, object]) -> PurePath:
    """Return folder and name of an ESPERANTO frame, as eiger2crysalis has them: one folder for each scan.

    A frame of a run is counted by its seq_num, any other (and each of several in one event) by the last number in its
    source's name. Runs may share the name of their frames, so their folders also have the beginning of the run's uid.
    """
    name, number = series_of(source)
    index: object = 1 if number is None else number
    if fields.get("run") and fields.get("seq_num") and not fields.get("number"):
        index = fields["seq_num"]
    folder = f"{name}_{str(fields['run'])[:8]}" if fields.get("run") else name
    return PurePath(folder, f"{name}_1_{index}.esperanto")


def counted_by(source: Path, position: int) -> Path:
    """Return the path that a frame would have if its name ended with the number at `position` in it.

    Positions count from 1, and from the right if they are negative. What follows that number is no part of the scan's
    name; a name that has fewer numbers stays.

    >>> counted_by(Path("scan2_0017_300K.tif"), 2).name, counted_by(Path("scan2_0017_300K.tif"), -2).name
    ('scan2_0017.tif', 'scan2_0017.tif')
    """
    numbers = list(re.finditer(r"\d+", source.stem))
    place = position - 1 if position > 0 else position
    if not -len(numbers) <= place < len(numbers):
        return source
    return source.with_name(source.stem[: numbers[place].end()] + source.suffix)


def series_of(source: Path) -> tuple[str, int | None]:
    """Return what the frames of a scan have in common in their names, and the number of this one.

    >>> series_of(Path("pattern-00017.tif"))
    ('pattern', 17)
    """
    series, number = _SERIES.fullmatch(source.stem), _LAST_NUMBER.search(source.stem)
    return (series["name"] if series else source.stem) or "frame", int(number[1]) if number else None
