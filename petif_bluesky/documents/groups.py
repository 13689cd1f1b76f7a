"""Assign the frames of a run to groups, each of which becomes one combined frame. Pure.

    frames, in the order of their documents  -->  Groups  -->  frames with group and member (or why there is none)
                                                          -->  closings: how many members a group has

A member number is a place in its group. After a pause, an event may be taken again: its frames `supersede` those of the
earlier event, and take their places; where the new event belongs to another group, the old place stays empty. So the
number of members, which counts places, never decreases.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from petif_bluesky.documents.frame import Frame, InEvent
from petif_bluesky.documents.nearest import NearestPoints
from petif_bluesky.documents.run_recipe import part_of_recipe
from tango_server.limits import LONGEST_ID, MOST_MEMBERS
from tango_server.recipe.combine import By, Combine, Every

_KEPT = 20_000
"""Frames, and groups of events, that are remembered in case they are taken again."""
_ALONE = InEvent()


@dataclass(slots=True, eq=False)
class _Group:
    """One group; `size` is the number of its places."""

    id: str
    size: int = 0


class _Taken(NamedTuple):
    """A frame that may be taken again."""

    key: str
    event: str
    series: "_Series"
    group: _Group | None
    member: int


@dataclass(slots=True, eq=False)
class _Series:
    """The groups of one image of one stream: with a dark, or without one although the recipe wants it."""

    stem: str
    end: str
    groups: OrderedDict[str, _Group] = field(default_factory=OrderedDict)
    """By the part of their ids between `stem` and `end`."""
    by_values: list[_Group] = field(default_factory=list)
    points: NearestPoints | None = None
    """The first values of these."""
    count: int = 0
    """Number of places given to frames."""
    current: _Group | None = None

    def group(self, name: str) -> _Group:
        """Return the group of that name, a new one if there is none."""
        if name not in self.groups:
            self.groups[name] = _Group(_bounded(f"{self.stem}{name}{self.end}"))
        return self.groups[name]


class Groups:
    """The groups of one converter in a run.

    Parameters
    ----------
    booking: the run uid of its frames on the server
    combine: which frames are combined

    """

    def __init__(self, booking: str, combine: Combine) -> None:
        self._booking = booking
        self._combine = combine
        self._series: dict[tuple[str, str, bool], _Series] = {}
        self._taken: OrderedDict[tuple[str, str, int, int], _Taken] = OrderedDict()
        self._open: dict[str, _Group] = {}
        self._closings: dict[str, int] = {}

    @property
    def open_members(self) -> int:
        """Number of places in groups that are not closed yet."""
        return sum(group.size for group in self._open.values())

    def add(self, frame: Frame) -> Frame:
        """Return a frame with its place in its group; with a problem if it belongs to none."""
        place = frame.in_event or _ALONE
        spot = (frame.stream or "", frame.data_key, frame.seq_num, place.number)
        earlier = self._taken.pop(spot, None)
        if earlier is not None and earlier.event == place.event:  # another image of the same event
            earlier = None
        series = self._series_of(frame)
        group = self._group_of(series, frame, place, earlier)
        member = earlier.member if earlier and group and earlier.group is group else group.size if group else 0
        problem = "" if group else place.problem or "it has no event with the positions"
        if group is not None and (max(member, place.count - 1) if self._is_of_event else member) >= MOST_MEMBERS:
            group, problem = None, f"its group has more than {MOST_MEMBERS} frames"
        self._taken[spot] = _Taken(frame.key, place.event, series, group, member)
        if len(self._taken) > _KEPT:
            self._taken.popitem(last=False)
        known = replace(frame, supersedes=earlier.key if earlier and earlier.key != frame.key else "")
        if group is None:
            return replace(known, problem=f"cannot combine: {problem}")
        group.size = max(group.size, member + 1)
        return replace(known, group=group.id, member=member, members=self._members(group, place))

    def close(self) -> None:
        """Close all groups: the run is about to stop."""
        for group in tuple(self._open.values()):
            self._close(group)

    def take_closings(self) -> dict[str, int]:
        """Return the number of members of each group that was closed since the last call."""
        closings, self._closings = self._closings, {}
        return closings

    @property
    def _is_of_event(self) -> bool:
        return self._combine.of == "event"

    def _series_of(self, frame: Frame) -> _Series:
        undark = frame.dark is not None and not frame.dark.paths
        key = frame.stream or "", frame.data_key, undark
        if key not in self._series:
            stem = f"{self._booking}/{frame.data_key}/{frame.stream or ''}/"
            self._series[key] = _Series(stem, "/no-dark" if undark else "")
        return self._series[key]

    def _group_of(self, series: _Series, frame: Frame, place: InEvent, earlier: _Taken | None) -> _Group | None:
        match self._combine.of:
            case "event":
                _forget_oldest(series.groups)
                return series.group(str(frame.seq_num))
            case "run":
                return series.group("0")
            case Every(every=every):
                if earlier is not None and earlier.series is series:
                    return earlier.group
                _forget_oldest(series.groups)
                series.count += 1
                return series.group(str((series.count - 1) // every))
            case By(by=by):
                return self._group_by(series, place, by)
        raise AssertionError(self._combine.of)

    def _group_by(self, series: _Series, place: InEvent, by: tuple[tuple[str, float], ...]) -> _Group | None:
        """Return the nearest group within the tolerances of its first values; close the one before."""
        if place.problem or len(place.values) != len(by):
            return None
        if series.points is None:
            series.points = NearestPoints([tolerance for _, tolerance in by])
        number = series.points.find(place.values)
        if number is None:
            series.points.add(place.values)
            series.by_values.append(series.group(",".join(map(repr, place.values))))
        group = series.by_values[-1 if number is None else number]
        if series.current is not None and series.current is not group:
            self._close(series.current)
        series.current = group
        return group

    def _members(self, group: _Group, place: InEvent) -> int | None:
        """Return the number of members, None while it is unknown."""
        match self._combine.of:
            case "event":
                return max(place.count, group.size)
            case Every(every=every) if group.size == every:
                self._open.pop(group.id, None)
                return every
        self._open[group.id] = group
        return None

    def _close(self, group: _Group) -> None:
        if self._open.pop(group.id, None) is not None:
            self._closings[group.id] = group.size


def combine_of(recipe: Any) -> Combine | None:
    """Return how the frames of a recipe in JSON are combined; None if they are not, or the recipe is invalid."""
    return part_of_recipe(recipe, "combine", Combine)


def _forget_oldest(groups: OrderedDict[str, _Group]) -> None:
    if len(groups) > _KEPT:
        groups.popitem(last=False)


def _bounded(group: str) -> str:
    """Return an id that a server accepts."""
    if len(group) <= LONGEST_ID:
        return group
    digest = hashlib.sha256(group.encode("utf-8", "replace")).hexdigest()
    return f"{group[: LONGEST_ID - len(digest) - 1]}/{digest}"
