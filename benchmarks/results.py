"""The results of a benchmark as CSV, one figure a row: measurement, case, quantity, value, unit."""

import csv
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import psutil

_DIGITS = 4


class Figure(NamedTuple):
    """One measured value."""

    measurement: str
    case: str
    quantity: str
    value: float | str
    unit: str = ""


def machine(command: str) -> list[Figure]:
    """Return what was run, where and when. Call it before the measurement: it notes the load of the machine."""
    facts = {
        "command": command,
        "date": f"{datetime.now():%Y-%m-%d}",
        "Python": platform.python_version(),
        "processor": platform.machine(),
        "cores": str(os.cpu_count()),
        "load before": f"{psutil.getloadavg()[0]:.1f}",
    }
    return [Figure("machine", "", name, value) for name, value in facts.items()]


def rows(measurement: str, case: str, unit: str, values: dict[str, float]) -> list[Figure]:
    """Return several quantities of one case, in one unit."""
    return [Figure(measurement, case, quantity, value, unit) for quantity, value in values.items()]


def publish(figures: Sequence[Figure], path: Path | None) -> None:
    """Write the figures to a file, or to standard output if there is none."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") if path else nullcontext(sys.stdout) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Figure._fields)
        writer.writerows(_written(figures))


def _written(figures: Iterable[Figure]) -> Iterable[Figure]:
    for figure in figures:
        rounded = figure.value if isinstance(figure.value, str) else f"{figure.value:.{_DIGITS}g}"
        yield figure._replace(value=rounded)
