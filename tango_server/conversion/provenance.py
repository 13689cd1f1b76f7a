"""The provenance of a converted file, in its ASCII tags.

`ImageDescription` holds compact JSON: `{"petif": 1, "recipe": {...}, "source": "name.tif", "from": "1f0c...",
"version": "0.1.0"}`, with `"placeholder": true` for a missing frame, `"job": "4f3c..."` for a server's job, and
`"original": "..."`, the ImageDescription of a frame that was replaced in place.
Of several frames in one, `combined` has the method (with `sigma`), how many `frames` there were to be and are `used`,
the names of the `first` and the `last`, and a hash of all their paths (`frames_sha256`): a list may be too long.
With corrections, `masters` lists the files that were used (`kind`, `path`, `sha256`, `run_uid`, `scale`), and `masked`
and `overexposed` count pixels.
`from` is a hash of the relative path from the output to its source: it distinguishes sources with one name, even after
both trees were moved; `job` distinguishes two conversions of one source. `Software` has the program and its version,
`DateTime` the time of the acquisition, or of making a placeholder (`YYYY:MM:DD HH:MM:SS`).
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.naming import is_stand_in
from tango_server.messages import Master, PixelCounts
from tango_server.recipe import Recipe
from tango_server.text import printable

FORMAT = 1
TIFF_TIME = "%Y:%m:%d %H:%M:%S"
_DIGITS = 12
_MASTERS = TypeAdapter(tuple[Master, ...])
_LATEST = 253_402_128_000.0  # the day before the last of the year 9999, where dates end, in every time zone


@dataclass(frozen=True, slots=True)
class Provenance:
    """The provenance in a converted file.

    `recipe` is without `output`; None if the file does not contain it. An ESPERANTO frame has only format and
    orientation, and the `content_hash` of the whole recipe.
    """

    recipe: dict[str, Any] | None
    source: str
    origin: str
    version: str
    placeholder: bool = False
    job: str | None = None
    original: str | None = None
    """The ImageDescription of the frame that this file replaced."""
    content_hash: str | None = None
    average: dict[str, Any] | None = None
    """The frames of which this file is the average, see `average_file`."""
    masters: tuple[Master, ...] = ()
    masked: int = 0
    overexposed: int | None = None
    combined: dict[str, Any] | None = None
    """The frames of which this file is a combination."""

    @property
    def summary(self) -> str:
        """A description of the file, for messages."""
        if self.average is not None:
            return f"an average of {self.average.get('frames')} frames"
        if self.combined is not None:
            used, frames = self.combined.get("used"), self.combined.get("frames")
            return f"a combination ({self.combined.get('method')}) of {used} of {frames} frames, from {self.source} on"
        if self.placeholder:
            return f"a placeholder for the missing frame {self.source}"
        return f"a file already converted from {self.source}"

    def stands_for(self, origin: str) -> bool:
        """Whether the file is a placeholder for the frame of this origin, or for one of a map that had not come."""
        return self.placeholder and (self.origin == origin or is_stand_in(self.source))

    def is_of(self, members: Iterable[FrameLocation], output: Path) -> bool:
        """Whether the file, at `output`, was combined from these frames."""
        listed = (self.combined or {}).get("frames_sha256")  # an ESPERANTO header has the beginning only
        return isinstance(listed, str) and bool(listed) and list_hash(members, output).startswith(listed)

    def matches(self, recipe: Recipe) -> bool:
        """Whether this recipe, whatever its output path, made the file's content from a frame."""
        return self.average is None and self.combined is None and self.is_made_with(recipe)

    def is_made_with(self, recipe: Recipe) -> bool:
        """Whether this recipe, whatever its output path, made the file's content from a frame or a group."""
        if self.placeholder:
            return False
        if self.content_hash is not None:
            return self.content_hash == recipe.content_hash
        if self.recipe is None:
            return False
        try:
            own = Recipe.model_validate(self.recipe)  # fields that an earlier version lacked get their default
        except (ValueError, RecursionError):
            return False
        return own.content_fields() == recipe.content_fields()


@cache
def package_version() -> str:
    """The version of this package, from its own metadata."""
    return version("petif-bluesky")


def software() -> str:
    """The text of the Software tag."""
    return f"petif-bluesky {package_version()}"


def origin_of(source: FrameLocation, output: Path) -> str:
    """Return 8 hexadecimal digits, a hash of the relative path from the folder of `output` to the frame."""
    return hashlib.sha256(_bytes(way_to(source, output))).hexdigest()[:8]


def list_hash(sources: Iterable[FrameLocation], output: Path) -> str:
    """Return the SHA-256 of the relative paths from the folder of `output` to several frames, in their order."""
    return hash_of_ways(way_to(source, output) for source in sources)


def hash_of_ways(ways: Iterable[str]) -> str:
    """Return the SHA-256 of relative paths, in their order."""
    return hashlib.sha256(b"\0".join(map(_bytes, ways))).hexdigest()


def way_to(source: FrameLocation, output: Path) -> str:
    """Return the relative path from the folder of `output` to a frame, with its data set and index in a container."""
    try:
        way = Path(os.path.relpath(source.file, output.parent)).as_posix()
    except ValueError:  # on another drive of Windows
        way = source.file.as_posix()
    return way if source.index is None else f"{way}::{source.data_set}#{source.index}"


def _bytes(way: str) -> bytes:
    return way.encode("utf-8", "surrogateescape")


def describe(
    recipe: Recipe,
    source: FrameLocation,
    output: Path,
    *,
    placeholder: bool = False,
    job: str | None = None,
    original: str | None = None,
    masters: Sequence[Master] = (),
    combined: Mapping[str, Any] | None = None,
    pixels: PixelCounts | None = None,
) -> str:
    """Return the text of the ImageDescription tag, always ASCII.

    Its length is the same for all `pixels` except None, so that the counts can be put in after the pixels are written.
    """
    record: dict[str, Any] = {
        "petif": FORMAT,
        "recipe": recipe.content_fields(),
        "source": source.name,
        "from": origin_of(source, output),
        "version": package_version(),
    }
    if placeholder:
        record["placeholder"] = True
    if job is not None:
        record["job"] = job
    if original is not None:
        record["original"] = original
    if combined is not None:
        record["combined"] = dict(combined)
    if masters:
        left_out = {"modified", "exposure_time"}
        record["masters"] = [master.model_dump(exclude_defaults=True, exclude=left_out) for master in masters]
    text = json.dumps(record, separators=(",", ":"), ensure_ascii=True)
    if pixels is None:
        return text
    overexposed = "null" if pixels.overexposed is None else str(pixels.overexposed)
    return f'{text[:-1]},"masked":{pixels.masked:{_DIGITS}d},"overexposed":{overexposed:>{_DIGITS}}}}'


def provenance_in_description(text: str) -> Provenance | None:
    """Return the provenance in the ImageDescription of a file that we wrote, None for every other text."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("petif"), int):
        return None
    recipe, job, original = record.get("recipe"), record.get("job"), record.get("original")
    average = record.get("average")
    return Provenance(
        recipe=recipe if isinstance(recipe, dict) and recipe else None,
        source=_text(record.get("source", "")),
        origin=_text(record.get("from", "")),
        version=_text(record.get("version", "")),
        placeholder=record.get("placeholder") is True,
        job=_text(job) if isinstance(job, str) else None,
        original=original if isinstance(original, str) else None,
        average=average if isinstance(average, dict) else None,
        masters=_masters(record.get("masters")),
        masked=_count(record.get("masked")) or 0,
        overexposed=_count(record.get("overexposed")),
        combined=_combined(record.get("combined")),
    )


def _combined(value: object) -> dict[str, Any] | None:
    """Return the facts about the frames of a combination, None if they are not ours."""
    if not isinstance(value, dict):
        return None
    numbers = {name: _count(value.get(name)) for name in ("frames", "used")}
    if None in numbers.values():
        return None
    sigma = value.get("sigma")
    texts = {name: _text(value.get(name)) for name in ("first", "last", "frames_sha256")}
    return {
        "method": _text(value.get("method")),
        **({"sigma": float(sigma)} if isinstance(sigma, int | float) else {}),
        **numbers,
        **texts,
    }


def _masters(value: object) -> tuple[Master, ...]:
    try:
        return _MASTERS.validate_python(value)
    except ValueError:
        return ()


def _count(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _text(value: object) -> str:
    """Return a text of a record, which anyone may have written."""
    return printable(value) if isinstance(value, str) else ""


def tiff_time(instant: float) -> str:
    """Return an instant (Unix s) in TIFF's form and local time, clipped to the years 1970 to 9999."""
    return datetime.fromtimestamp(max(0.0, min(instant, _LATEST))).strftime(TIFF_TIME)
