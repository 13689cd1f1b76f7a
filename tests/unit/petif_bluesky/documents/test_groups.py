"""Frames are assigned to groups: as a simple reference does it, whatever the order of events and rewinds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petif_bluesky.documents.darks import FoundDark
from petif_bluesky.documents.frame import Frame, InEvent
from petif_bluesky.documents.groups import Groups, combine_of
from petif_bluesky.documents.nearest import NearestPoints
from petif_bluesky.documents.positions import NoPositionError, positions_in
from tango_server.limits import LONGEST_ID, MOST_MEMBERS
from tango_server.messages import FrameRequest
from tango_server.recipe import Recipe
from tango_server.recipe.combine import Combine
from tango_server.recipe.corrections import DarkFacts

TOLERANCE = 0.25


def frame(name: str, seq_num: int = 1, *, data_key: str = "pe_image", **in_event: Any) -> Frame:
    place = InEvent(**{"event": f"event {seq_num}", **in_event})
    return Frame(f"/raw/{name}.tif", seq_num, "1f", "primary", data_key, in_event=place)


def groups(of: Any, booking: str = "1f") -> Groups:
    return Groups(booking, Combine(of=of, method="sum"))


@dataclass(frozen=True)
class Shot:
    """An event of a random run: where it is, how many frames it has, and whether the next one takes it again."""

    position: float | None
    frames: int
    again: bool


SHOTS = st.lists(
    st.builds(
        Shot,
        st.one_of(st.none(), st.integers(-6, 6).map(lambda step: step / 8)),
        st.integers(1, 3),
        st.booleans(),
    ),
    max_size=25,
)
OF = st.sampled_from(["event", "run", {"every": 2}, {"every": 5}, {"by": {"x": TOLERANCE}}, {"by": {"x": 0.0}}])


def taken(shots: Sequence[Shot]) -> list[tuple[int, Shot]]:
    """The events in order, with their seq_num: the one before is taken again where a shot says so."""
    events, seq_num = [], 0
    for shot in shots:
        seq_num = max(seq_num if shot.again else seq_num + 1, 1)
        events.append((seq_num, shot))
    return events


def reference(of: Any, frames: Sequence[Frame]) -> dict[str, list[str]]:
    """The members of each group, by the path of its first frame ever, without superseded ones; by brute force."""
    last = {(each.seq_num, each.in_event.number): each.path for each in frames if each.in_event}
    firsts: list[float] = []
    places: list[tuple[int, int]] = []
    found: dict[Any, list[tuple[int, str]]] = {}
    for each in frames:
        assert each.in_event is not None
        spot = each.seq_num, each.in_event.number
        if spot not in places:
            places.append(spot)
        name: Any = 0
        if of == "event":
            name = each.seq_num
        elif "every" in of:
            name = places.index(spot) // of["every"]
        elif "by" in of:
            if each.in_event.problem:
                continue
            (value,), tolerance = each.in_event.values, of["by"]["x"]
            near = [(abs(value - first), first) for first in firsts if abs(value - first) <= tolerance]
            if not near:
                firsts.append(value)
            name = min(near, key=lambda pair: (pair[0], firsts.index(pair[1])))[1] if near else value
        found.setdefault(name, [])
        if last[spot] == each.path:
            found[name].append((places.index(spot) if "by" not in of else 0, each.path))
    return {
        str(name): [path for _, path in sorted(members, key=lambda pair: pair[0])]
        for name, members in found.items()
        if members
    }


@given(OF, SHOTS)
@settings(max_examples=300, deadline=None)
def test_every_frame_is_in_one_group_or_named_as_in_none(of: Any, shots: list[Shot]) -> None:
    made, frames, closings = groups(of), [], dict[str, int]()
    for number, (seq_num, shot) in enumerate(taken(shots)):
        for index in range(shot.frames):
            values = () if shot.position is None or "by" not in of else (shot.position,)
            problem = "it has no 'x'" if "by" in of and shot.position is None else ""
            place = InEvent(index, shot.frames, f"event {number}", values, problem)
            frames.append(Frame(f"/raw/{number}_{index}.tif", seq_num, "1f", "primary", "pe_image", in_event=place))
    requests = []
    for each in frames:
        requests.append(FrameRequest.model_validate(made.add(each).request()))
        assert made.open_members <= len(requests)
        closings |= made.take_closings()
    made.close()
    closings |= made.take_closings()
    assert made.open_members == 0

    superseded = {request.supersedes for request in requests} - {None}
    members: dict[str, dict[int, FrameRequest]] = {}
    places: dict[str, set[int]] = {}
    for request in requests:
        if request.group is None:
            assert "cannot combine" in request.metadata["left_out"]["group"]
            continue
        assert request.member is not None
        places.setdefault(request.group, set()).add(request.member)
        closings[request.group] = max(closings.get(request.group, 0), request.members or 0)
        if request.key not in superseded:
            assert request.member not in members.setdefault(request.group, {}), "a place has one frame"
            members[request.group][request.member] = request
    assert {group: set(range(number)) for group, number in closings.items()} == places
    combined = sorted([request.source for _, request in sorted(of_group.items())] for of_group in members.values())
    if "by" in of:  # a frame taken again has the place of the earlier one, or the last one of another group
        combined, expected = sorted(map(sorted, combined)), sorted(map(sorted, reference(of, frames).values()))
    else:
        expected = sorted(reference(of, frames).values())
    assert [group for group in combined if group] == expected
    alone = {request.source for request in requests if request.group is None}
    assert alone == {each.path for each in frames if each.in_event and each.in_event.problem}


@given(
    st.lists(st.tuples(*[st.integers(-8, 8).map(lambda step: step / 16)] * 4), max_size=40),
    st.tuples(*[st.sampled_from([0.0, 1 / 16, 0.3, 1e-320])] * 4),
)
@settings(max_examples=200, deadline=None)
def test_nearest_point_is_that_of_a_search_of_all(points: list[Any], tolerances: Any) -> None:
    nearest, known = NearestPoints(tolerances), list[Any]()
    for point in points:
        apart = [
            max(abs(a - b) / t if t else float(a != b) * 2 for a, b, t in zip(point, other, tolerances, strict=True))
            for other in known
        ]
        within = [(each, number) for number, each in enumerate(apart) if each <= 1]
        assert nearest.find(point) == (min(within)[1] if within else None)
        if not within:
            known.append(point)
            nearest.add(point)


def test_value_joins_the_nearest_group_of_its_first_value() -> None:
    made = groups({"by": {"x": 0.1}})
    values = (0.0, 0.09, 0.15, 0.24, 0.06)
    ids = [made.add(frame(str(n), n, values=(value,))).group for n, value in enumerate(values, start=1)]
    assert ids == [f"1f/pe_image/primary/{value}" for value in (0.0, 0.0, 0.15, 0.15, 0.0)]


def test_group_closes_when_another_one_comes_and_is_made_anew() -> None:
    made = groups({"by": {"x": 0.1}})
    closings = []
    for number, value in enumerate((0.0, 0.0, 1.0, 0.05), start=1):
        made.add(frame(str(number), number, values=(value,)))
        closings.append(made.take_closings())
    made.close()
    first, second = "1f/pe_image/primary/0.0", "1f/pe_image/primary/1.0"
    assert [*closings, made.take_closings()] == [{}, {}, {first: 2}, {second: 1}, {first: 3}]


def test_frames_of_an_event_know_their_number_at_once() -> None:
    made = groups("event")
    grouped = [made.add(frame(str(number), 7, number=number, count=3)) for number in range(3)]
    assert [(each.group, each.member, each.members) for each in grouped] == [
        ("1f/pe_image/primary/7", number, 3) for number in range(3)
    ]
    assert made.open_members == 0


def test_last_group_of_every_n_is_closed_with_what_it_has() -> None:
    made = groups({"every": 2})
    known = [made.add(frame(str(number), number)).members for number in range(1, 4)]
    assert (known, made.open_members) == ([None, 2, None], 1)
    made.close()
    assert made.take_closings() == {"1f/pe_image/primary/1": 1}


def test_point_taken_elsewhere_leaves_its_place_empty() -> None:
    made = groups({"by": {"x": 0.1}})
    first = made.add(frame("a", 1, event="one", values=(0.0,)))
    other = made.add(frame("b", 1, event="two", values=(1.0,)))
    assert (first.group, other.group, other.supersedes) == (
        "1f/pe_image/primary/0.0", "1f/pe_image/primary/1.0", first.key,
    )  # fmt: skip
    assert made.take_closings() == {first.group: 1}


def test_group_never_mixes_detectors_streams_or_darks() -> None:
    made = groups("run")
    dark, none = FoundDark(("/raw/dark.tif",), DarkFacts()), FoundDark((), DarkFacts(note="no dark"))
    frames = [
        frame("a"),
        frame("b", data_key="eiger_image"),
        replace(frame("c"), stream="secondary"),
        replace(frame("d", 2), dark=dark),
        replace(frame("e", 3), dark=none),
    ]
    ids = [made.add(each).group for each in frames]
    assert ids == [
        "1f/pe_image/primary/0", "1f/eiger_image/primary/0", "1f/pe_image/secondary/0", "1f/pe_image/primary/0",
        "1f/pe_image/primary/0/no-dark",
    ]  # fmt: skip


def test_frames_beyond_the_largest_group_are_in_none() -> None:
    made = groups("run")
    grouped = [made.add(frame(str(number), number)) for number in range(MOST_MEMBERS + 1)]
    assert grouped[-2].member == MOST_MEMBERS - 1
    assert (grouped[-1].group, str(MOST_MEMBERS) in grouped[-1].problem) == ("", True)
    made.close()
    assert list(made.take_closings().values()) == [MOST_MEMBERS]


def test_long_ids_stay_different_and_acceptable() -> None:
    made = groups({"by": {"x": 0.1}})
    long = "k" * 600
    ids = {made.add(frame(str(n), n, data_key=long, values=(float(n),))).group for n in range(3)}
    assert len(ids) == 3
    assert {len(each) for each in ids} == {LONGEST_ID}


@pytest.mark.parametrize("value", [math.nan, math.inf, "at home", None, [1.0, 2.0], np.array([1.0])])
def test_value_that_is_no_number_is_named(value: Any) -> None:
    with pytest.raises(NoPositionError, match="'x' of its event is not a number"):
        positions_in({"x": value}, ["x"])


def test_missing_key_is_named() -> None:
    with pytest.raises(NoPositionError, match="its event has no 'x'"):
        positions_in({"y": 1.0}, ["x"])


def test_setpoint_is_preferred_to_the_readback() -> None:
    data = {"x": 0.1003, "x_user_setpoint": 0.1, "y": np.float32(0.25), "y_setpoint": math.nan, "z-user_setpoint": 3}
    assert positions_in(data, ["x", "y", "z"]) == (0.1, 0.25, 3.0)


def test_invalid_combination_is_left_to_the_server() -> None:
    recipe = Recipe.preset("xdi").model_dump(mode="json")
    assert combine_of(recipe) is None
    assert combine_of({**recipe, "combine": {"of": {"every": 0}, "method": "sum"}}) is None
    assert combine_of({**recipe, "combine": {"of": "run", "method": "sum"}}) == Combine(of="run", method="sum")
