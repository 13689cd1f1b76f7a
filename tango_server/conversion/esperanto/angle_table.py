"""Angles of frames from a table (CSV), for rotation scans without a bluesky run.

The first line names the columns: `file`, and numbers for each frame, such as `omega_start` and `omega_end`, or `omega`
with or without `omega_width`; the same for theta, kappa and phi. A recipe may name other columns, such as `exposure`.
Columns are separated by commas, semicolons or tabs; lines that begin with # are ignored.
"""

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tango_server.recipe.esperanto import CIRCLES

FILE = "file"
_DELIMITERS = ",;\t"
_LARGEST = 64 * 2**20  # bytes


class AngleTableError(ValueError):
    """A table is invalid; the message names the line."""


@dataclass(frozen=True, slots=True)
class AngleTable:
    """The numbers of each file, by name, and the circles for a recipe."""

    path: Path
    rows: Mapping[str, Mapping[str, float]]
    circles: Mapping[str, Mapping[str, str]]

    def of(self, frame: Path) -> Mapping[str, float]:
        """Return the numbers of a frame.

        Raises
        ------
        AngleTableError
            if the table has no line for it.

        """
        try:
            return self.rows[frame.name]
        except KeyError:
            raise AngleTableError(
                f"{frame}: no line for {frame.name} in {self.path}. Add one for each frame."
            ) from None


def read_angle_table(path: Path) -> AngleTable:
    """Return the table of a file.

    Raises
    ------
    AngleTableError
        if it has no column `file`, no circle, a file twice, or a value that is not a number.

    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            text = file.read(_LARGEST)
    except (OSError, UnicodeDecodeError) as error:
        raise AngleTableError(f"{path}: cannot read the table ({error}). It must be UTF-8 text.") from error
    numbered = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if _counts(line)]
    if not numbered:
        raise AngleTableError(f"{path}: the table is empty. {_FORM}")
    first = numbered[0][1]
    delimiter = max(_DELIMITERS, key=first.count)
    columns = [name.strip() for name in next(csv.reader([first], delimiter=delimiter))]
    circles = _circles(path, columns)
    rows: dict[str, Mapping[str, float]] = {}
    for number, line in numbered[1:]:
        name, numbers = _row(f"{path}, line {number}", columns, next(csv.reader([line], delimiter=delimiter)))
        if name in rows:
            raise AngleTableError(f"{path}, line {number}: {name} occurs twice. Keep one line for each file.")
        rows[name] = numbers
    return AngleTable(path, rows, circles)


_FORM = "The first line names the columns, for example file,omega_start,omega_end."


def _counts(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _circles(path: Path, columns: list[str]) -> dict[str, Mapping[str, str]]:
    if FILE not in columns or len(set(columns)) != len(columns):
        raise AngleTableError(
            f"{path}: invalid columns ({', '.join(columns)}): one must be named file, none may occur twice. {_FORM}"
        )
    circles: dict[str, Mapping[str, str]] = {}
    for name in CIRCLES:
        if circle := _circle(name, columns):
            circles[name] = circle
    if not circles:
        raise AngleTableError(f"{path}: no column is an angle ({', '.join(columns)}). {_FORM}")
    return circles


def _circle(name: str, columns: Iterable[str]) -> dict[str, str]:
    """Return the recipe's fields of a circle with these columns."""
    parts = {"center": name, **{part: f"{name}_{part}" for part in ("start", "end", "width")}}
    return {part: column for part, column in parts.items() if column in columns}


def _row(place: str, columns: list[str], values: list[str]) -> tuple[str, dict[str, float]]:
    if len(values) != len(columns):
        raise AngleTableError(f"{place}: {len(values)} values for {len(columns)} columns. Correct the line.")
    fields = dict(zip(columns, (value.strip() for value in values), strict=True))
    name = Path(fields.pop(FILE)).name
    return name, {column: _number(place, column, value) for column, value in fields.items() if value}


def _number(place: str, column: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise AngleTableError(f"{place}: {column} is not a number: {value!r}. Correct the line.")
    return number


def fields_of(table: AngleTable | None, frame: Path, number: int) -> dict[str, Any]:
    """Return the fields of a frame, the n-th of its scan, for its header; raises as `AngleTable.of` does."""
    return {**(table.of(frame) if table is not None else {}), "seq_num": number}
