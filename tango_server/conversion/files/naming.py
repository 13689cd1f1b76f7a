"""Output names from a template and the fields of a frame.

>>> from pathlib import Path
>>> named_by("{sample}_{index:05d}", FrameLocation(Path("pattern-00017.tif")), {"sample": "CeO2"})
'CeO2_00017.tif'
>>> named_by("{stem}", FrameLocation(Path("scan.h5"), index=7), {})
'scan_00007.tif'

CrysAlis opens frames named `name_1_index.esperanto`, with one folder for each scan:

>>> esperanto_path(FrameLocation(Path("pattern-00017.tif")), {"run": "3f9c2a1b-7d91", "seq_num": 2}).as_posix()
'pattern_3f9c2a1b/pattern_1_2.esperanto'
>>> esperanto_path(FrameLocation(Path("pattern-00017.tif")), {}).as_posix()
'pattern/pattern_1_17.esperanto'
>>> esperanto_path(FrameLocation(Path("scan_2.h5"), index=16), {}).as_posix()
'scan_2/scan_2_1_17.esperanto'
"""

import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from string import Formatter

from tango_server.conversion.errors import NameTemplateError
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.messages import MapPoint
from tango_server.recipe import Format

_LAST_NUMBER = re.compile(r"(\d{1,18})(?!.*\d)")
_WIDE = re.compile(r"\d{4}")  # too wide for a file name
_OTHER_FORMATS = {".cbf", ".edf", ".h5", ".hdf", ".hdf5", ".mar2300", ".mar3450", ".mccd", ".nx5", ".nxs"}
_SUFFIXES: dict[Format, tuple[str, ...]] = {"tiff": (".tif", ".tiff"), "esperanto": (".esperanto",)}
_SERIES = re.compile(r"(?P<name>.*?)[-_. ]*\d{1,18}\D*$")
_UID_BEGINS = 8  # characters that tell runs apart
_LONGEST_NAME = 200  # bytes; file systems take 255, and the temporary file's name is longer
_IN_MAP = "{series}_{point:05d}"  # sorts in the order of the rows, as XDI opens frames
_STAND_IN = "_without_frame_"
_UNFIT = re.compile(r"[\ud800-\udfff\x00-\x1f/\\:*?\"<>|]")


class _Fields(Formatter):
    """Plain fields only: no attributes, items or huge widths, so a template cannot access objects."""

    def format_field(self, value: object, format_spec: str) -> str:
        if _WIDE.search(format_spec):
            raise ValueError(f"{format_spec!r} is too wide for a file name")
        return format(value, format_spec)

    def get_field(self, field_name: str, args: object, kwargs: Mapping[str, object]) -> tuple[object, str]:
        del args
        return kwargs[field_name], field_name


def is_of_other_format(frame: FrameLocation) -> bool:
    """Return whether a frame is one of several in a file, or its file's name is not that of a TIFF."""
    return frame.index is not None or bool(frame.data_set) or frame.file.suffix.lower() in _OTHER_FORMATS


def default_name(frame: FrameLocation) -> str:
    """Return the file name of a TIFF output: that of a TIFF source itself, or the stem with the suffix `.tif`.

    >>> [default_name(FrameLocation.of(*frame)) for frame in (("a.TIFF",), ("a.cbf",), ("a.h5::/entry/data", 7))]
    ['a.TIFF', 'a.tif', 'a_00007.tif']
    """
    return f"{frame.stem}.tif" if is_of_other_format(frame) else frame.file.name


def named_by(template: str, frame: FrameLocation, fields: Mapping[str, object], file_format: Format = "tiff") -> str:
    """Return the file name of a frame by `template`, with the suffix of its format added if it has none.

    `fields` hold `run`, `seq_num` and metadata; `stem` and `index` (the last number in it) come from the source's name.
    For one of several frames in a file, `frame` is its index in it, `stem` ends with it, and `index` is it.

    Raises
    ------
    NameTemplateError
        if a field is missing or does not fit its format, or the name is not valid on every operating system.
    """
    source, number = frame.file, _LAST_NUMBER.search(frame.stem)
    known = {**fields, "stem": frame.stem, **({"index": int(number[1])} if number else {})}
    if frame.index is not None:
        known |= {"index": frame.index, "frame": frame.index}
    if isinstance(group := known.get("group"), str):
        known["group"] = group.replace("/", "_")  # its id on a server is that of run, image and stream, with separators
    try:
        name = _Fields().vformat(template, (), known)
    except KeyError as error:
        raise NameTemplateError(
            source,
            f"the frame has no field {error} for the template {template!r} (it has {', '.join(sorted(known))})",
            "Correct the template, or add the field to the frame's metadata.",
        ) from None
    except (ValueError, TypeError, OverflowError) as error:
        raise NameTemplateError(
            source, f"invalid template {template!r} ({error})", "Correct it; formats look like {index:05d}."
        ) from None
    endings = _SUFFIXES[file_format]
    if Path(name).suffix.lower() not in endings:
        name += endings[0]
    if _UNFIT.search(name) or name.startswith(".") or len(name.encode("utf-8", "replace")) > _LONGEST_NAME:
        raise NameTemplateError(
            source,
            f"the template {template!r} gives an invalid file name, {name[:_LONGEST_NAME]!a}: names have at most "
            f"{_LONGEST_NAME} bytes, no separators, and no dot at the start",
            "Correct the template, or the metadata that it uses.",
        )
    return name


def incomplete_path(output: Path, used: int, members: int) -> Path:
    """Return the path of the output of a group of which only some `members` could be `used`.

    >>> incomplete_path(Path("pat-00001.tif"), 8, 10).name
    'pat-00001_8of10.tif'
    """
    return output.with_name(f"{output.stem}_{used}of{members}{output.suffix}")


def esperanto_path(frame: FrameLocation, fields: Mapping[str, object]) -> PurePath:
    """Return folder and name of an ESPERANTO frame in eiger2crysalis's scheme: one folder for each scan.

    The index is the seq_num for a frame of a run, or the last number in the source's name (also for several frames in
    one event). A file of several frames is a scan of its own, counted from 1: events may have several of its frames, or
    take a point again. Runs may share frame names, so their folders also have the start of the run's uid.
    """
    name, number = series_of(frame.file) if frame.index is None else (frame.file.stem, frame.index + 1)
    index: object = 1 if number is None else number
    if frame.index is None and fields.get("run") and fields.get("seq_num") and not fields.get("number"):
        index = fields["seq_num"]
    folder = f"{name}_{str(fields['run'])[:_UID_BEGINS]}" if fields.get("run") else name
    return PurePath(folder, f"{name}_1_{index}.esperanto")


def map_path(frame: FrameLocation, point: MapPoint, run: str) -> PurePath:
    """Return folder and name of the output for a point of a map; the folder has the outputs of one map only.

    >>> point = MapPoint(point=17, shape=(4, 5), name="pattern")
    >>> map_path(FrameLocation(Path("pattern-00023.tif")), point, "3f9c2a1b-7d91").as_posix()
    'pattern_3f9c2a1b/pattern_00017.tif'
    """
    name = named_by(_IN_MAP, frame, {"series": point.name, "point": point.point})
    return PurePath(f"{point.name}_{run[:_UID_BEGINS]}" if run else point.name, name)


def stand_in_name(series: str, point: int) -> str:
    """Return the name of a file that does not exist, for a point of a map for which no frame came."""
    return f"{series}{_STAND_IN}{point:05d}.tif"


def is_stand_in(name: str) -> bool:
    """Return whether a name is one of `stand_in_name`."""
    return _STAND_IN in name


def counted_by(source: Path, position: int) -> Path:
    """Return the path of a frame with its name cut after the number at `position`.

    Positions count from 1, or from the right if negative. A name with fewer numbers is unchanged.

    >>> counted_by(Path("scan2_0017_300K.tif"), 2).name, counted_by(Path("scan2_0017_300K.tif"), -2).name
    ('scan2_0017.tif', 'scan2_0017.tif')
    """
    numbers = list(re.finditer(r"\d+", source.stem))
    place = position - 1 if position > 0 else position
    if not -len(numbers) <= place < len(numbers):
        return source
    return source.with_name(source.stem[: numbers[place].end()] + source.suffix)


def series_of(source: PurePath) -> tuple[str, int | None]:
    """Return the common part of the names of a scan's frames, and the number of this one.

    >>> series_of(Path("pattern-00017.tif"))
    ('pattern', 17)
    """
    series, number = _SERIES.fullmatch(source.stem), _LAST_NUMBER.search(source.stem)
    return (series["name"] if series else source.stem) or "frame", int(number[1]) if number else None
