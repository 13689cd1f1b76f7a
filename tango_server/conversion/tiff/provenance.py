"""What a converted file says of itself, in its own ASCII tags.

`ImageDescription` holds compact JSON: `{"petif": 1, "recipe": {...}, "source": "name.tif", "from": "1f0c...",
"version": "0.1.0"}`, with `"placeholder": true` for a frame that never appeared, `"job": "4f3c..."` for a server's
job, and `"original": "..."`, the ImageDescription of a frame that was replaced in place.
`from` stands for the way from the output to its source, so that two sources of one name are told apart even after
both trees were moved; `job` tells two conversions of one source apart. `Software` holds
the program and its version, `DateTime` the acquisition, or when a placeholder was made (TIFF's own form,
`YYYY:MM:DD HH:MM:SS`).
"""

import hashlib
import json
import os
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tango_server.conversion.tiff.structure import Page, Structure
from tango_server.recipe import Recipe
from tango_server.text import printable

FORMAT = 1
_TIFF_TIME = "%Y:%m:%d %H:%M:%S"
_LATEST = 253_402_128_000.0  # the day before the last one of the year 9999: dates end there, in every time zone


@dataclass(frozen=True, slots=True)
class Provenance:
    """The record that a converted file carries.

    `recipe` is what it was made with, without `output`; None if the file does not tell. An ESPERANTO frame tells only
    its format and orientation, and the `content_hash` of the whole recipe.
    """

    recipe: dict[str, Any] | None
    source: str
    origin: str
    version: str
    placeholder: bool = False
    job: str | None = None
    original: str | None = None
    """The ImageDescription of the frame that this file replaced, as it was."""
    content_hash: str | None = None

    @property
    def summary(self) -> str:
        """What the file is, for a message."""
        if self.placeholder:
            return f"a placeholder for {self.source}, a frame that never came"
        return f"a file that was converted already, from {self.source}"

    def matches(self, recipe: Recipe) -> bool:
        """Whether the file's content was made of a frame by this recipe (wherever it was to be put)."""
        if self.placeholder:
            return False
        if self.content_hash is not None:
            return self.content_hash == recipe.content_hash
        if self.recipe is None:
            return False
        try:
            own = Recipe.model_validate(self.recipe)  # what an earlier version did not know yet takes its default
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


def origin_of(source: Path, output: Path) -> str:
    """Return 8 hexadecimal digits that stand for where `source` lies as seen from `output`."""
    try:
        way = Path(os.path.relpath(source, output.parent)).as_posix()
    except ValueError:  # on another drive of Windows
        way = source.as_posix()
    return hashlib.sha256(way.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def describe(
    recipe: Recipe,
    source: Path,
    output: Path,
    *,
    placeholder: bool = False,
    job: str | None = None,
    original: str | None = None,
) -> str:
    """Return the text of the ImageDescription tag: ASCII, whatever the source is called."""
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
    return json.dumps(record, separators=(",", ":"), ensure_ascii=True)


def read_provenance(structure: Structure) -> Provenance | None:
    """Return the record of a file that we wrote, None for every other file."""
    if structure.state != "complete" or not structure.pages:
        return None
    try:
        record = json.loads(structure.pages[0].texts.get("description", ""))
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("petif"), int):
        return None
    recipe, job, original = record.get("recipe"), record.get("job"), record.get("original")
    return Provenance(
        recipe=recipe if isinstance(recipe, dict) and recipe else None,
        source=_text(record.get("source", "")),
        origin=_text(record.get("from", "")),
        version=_text(record.get("version", "")),
        placeholder=record.get("placeholder") is True,
        job=_text(job) if isinstance(job, str) else None,
        original=original if isinstance(original, str) else None,
    )


def _text(value: object) -> str:
    """Return a text of a record; anybody may have written it."""
    return printable(value) if isinstance(value, str) else ""


def acquired(page: Page, mtime_ns: int) -> str:
    """Return when the frame was taken as TIFF writes it: its own DateTime tag, else the file's modification time."""
    text = page.texts.get("datetime", "")
    try:
        datetime.strptime(text, _TIFF_TIME)
    except ValueError:
        return tiff_time(mtime_ns / 1e9)
    return text


def tiff_time(instant: float) -> str:
    """Return an instant (Unix s) as TIFF writes it, in this host's local time; the nearest date from 1970 to 9999."""
    return datetime.fromtimestamp(max(0.0, min(instant, _LATEST))).strftime(_TIFF_TIME)
