"""Requests for frames of zeros at the points of a map that have no frame. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tango_server.conversion.files.naming import stand_in_name
from tango_server.messages import FrameReport, MapPoint
from tango_server.text import LONGEST_MESSAGE, printable, split_data_set

_WRITTEN = frozenset({"converted", "skipped", "placeholder"})
_OF_ONE_FRAME = frozenset({"time", "timestamps", "units", "seq_num", "number", "left_out"})
"""Metadata that a placeholder does not share with a frame of its map."""


@dataclass(frozen=True, slots=True)
class Exemplar:
    """What the placeholders of a map share with one of its frames."""

    run_uid: str
    stream: str | None
    source: str
    recipe: Any
    metadata: Mapping[str, Any] = field(default_factory=dict)


def placeholder(exemplar: Exemplar, point: MapPoint, source: str = "", reason: str = "") -> dict[str, Any]:
    """Return the request for a placeholder at a point.

    Parameters
    ----------
    exemplar: a frame of the map
    point: the point
    source: the frame that failed; without one, a file that does not exist stands for it
    reason: why that failed

    """
    where = ", ".join(f"{key} = {value:g}" for key, value in zip(point.motors, point.positions, strict=False))
    problem = f"its frames failed: {reason}" if source else "no frame came"
    metadata = {key: value for key, value in exemplar.metadata.items() if key not in _OF_ONE_FRAME}
    metadata |= dict(zip(point.motors, point.positions, strict=False))
    text = f"point {point.point} of the map ({where}): {problem}"
    return {
        "source": source or _stand_in(exemplar.source, point),
        "recipe": exemplar.recipe,
        "key": f"{exemplar.run_uid}/map/{point.name}/{point.point}",
        "run_uid": exemplar.run_uid,
        "stream": exemplar.stream,
        "metadata": metadata,
        "map": point.model_dump(mode="json"),
        "placeholder": printable(text, LONGEST_MESSAGE),
    }


def failed_points(reports: Iterable[FrameReport]) -> list[FrameReport]:
    """Return a report of each point of a map that has no output because its frames failed."""
    failed: dict[tuple[str, int], FrameReport] = {}
    written: set[tuple[str, int]] = set()
    for report in reports:
        if report.map is None:
            continue
        place = (report.map.name, report.map.point)
        if report.outcome in _WRITTEN and report.output:
            written.add(place)
        elif report.outcome == "failed" and report.member is None:
            failed[place] = report
    return [report for place, report in failed.items() if place not in written]


def _stand_in(source: str, point: MapPoint) -> str:
    """Return the path of a file beside a frame that stands for one that never came."""
    path, _ = split_data_set(source)
    name = path.replace("\\", "/").rpartition("/")[2]
    return f"{path[: len(path) - len(name)]}{stand_in_name(point.name, point.point)}"
