"""The maps of all open runs of a callback: the point of each frame, and requests for points that need a placeholder."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

from petif_bluesky.documents.frame import Frame
from petif_bluesky.documents.uris import name_of
from petif_bluesky.maps.placeholders import Exemplar, failed_points, placeholder
from petif_bluesky.maps.points import ImageKey, MapPoints
from tango_server.conversion.files.naming import series_of
from tango_server.messages import FrameReport, MapPoint
from tango_server.text import split_data_set

_log = logging.getLogger(__name__)

_KEPT_RUNS = 100
_MOST_NOTES = 20
_MOST_AT_ONCE = 10_000  # placeholders that are requested in the thread of the RunEngine; petif map makes the others

Request = dict[str, Any]


@dataclass(slots=True)
class _RunMap:
    points: MapPoints = field(default_factory=MapPoints)
    first: dict[ImageKey, Frame] = field(default_factory=dict)
    requested: set[tuple[str, int]] = field(default_factory=set)
    """Name of the map and number of each point whose placeholder was requested."""
    notes: int = 0

    def note(self, frame: Frame, what: str) -> None:
        self.notes += 1
        if self.notes <= _MOST_NOTES:
            _log.warning("run %s: %s %s", frame.run_uid, frame.path, what)


class RunMaps:
    """Maps by run."""

    def __init__(self) -> None:
        self._runs: dict[str, _RunMap] = {}

    def placed(self, frame: Frame) -> Frame:
        """Return a frame with its point, or why it has none."""
        if frame.spot is None:
            return frame
        run = self._runs.setdefault(frame.run_uid, _RunMap())
        if len(self._runs) > _KEPT_RUNS:  # runs that never stopped
            del self._runs[next(iter(self._runs))]
        image = ImageKey(frame.stream or "", frame.data_key)
        owner = frame.group or frame.key  # an event that is taken again has another frame
        name, _ = series_of(PurePath(name_of(split_data_set(frame.path)[0])))
        try:
            point = run.points.point(image, name, frame.spot, owner)
        except ValueError as error:
            run.note(frame, f"is not on the map: {error}")
            return replace(frame, off_map=str(error))
        if run.points.maps[image].grid.number(frame.spot.positions) != point.point:
            run.note(frame, f"was not taken at point {point.point} of the map, but is combined with its frames")
        run.first.setdefault(image, frame)
        return replace(frame, map=point)

    def missing(self, run_uid: str) -> list[Request]:
        """Return requests for placeholders where no frame came, once for each point."""
        run = self._runs.get(run_uid)
        if run is None:
            return []
        exemplars = {image: self._exemplar(frame) for image, frame in run.first.items()}
        wanted = [
            (exemplars[image], point)
            for image, found in run.points.maps.items()
            if image in exemplars
            for point in found.missing()
        ]
        if len(wanted) > _MOST_AT_ONCE:
            _log.warning(
                "run %s: no frame came for %d points of its map; placeholders are written for %d of them. For the "
                "others: petif map %s", run_uid, len(wanted), _MOST_AT_ONCE, run_uid,
            )  # fmt: skip
        return self._new(run, [(exemplar, point, "", "") for exemplar, point in wanted[:_MOST_AT_ONCE]])

    def failed(self, run_uid: str, reports: Iterable[FrameReport]) -> list[Request]:
        """Return requests for placeholders where the frames failed, once for each point."""
        run = self._runs.get(run_uid)
        if run is None:
            return []
        exemplars = {run.points.maps[image].name: self._exemplar(frame) for image, frame in run.first.items()}
        failures = [
            (exemplars[report.map.name], report.map, report.source, report.reason)
            for report in failed_points(reports)
            if report.map is not None and report.map.name in exemplars
        ]
        return self._new(run, failures)

    def forget(self, run_uid: str) -> None:
        """Drop a run that has ended."""
        self._runs.pop(run_uid, None)

    def _exemplar(self, frame: Frame) -> Exemplar:
        request = frame.request()
        return Exemplar(frame.run_uid, frame.stream, request["source"], request["recipe"], request["metadata"])

    def _new(self, run: _RunMap, wanted: list[tuple[Exemplar, MapPoint, str, str]]) -> list[Request]:
        new = [each for each in wanted if (each[1].name, each[1].point) not in run.requested]
        run.requested |= {(point.name, point.point) for _, point, _, _ in new}
        return [placeholder(exemplar, point, source, reason) for exemplar, point, source, reason in new]
