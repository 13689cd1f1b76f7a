"""Frames of rotation scans wait for the readings that tell their angles, and no others wait."""

from typing import Any

import pytest

from petif_bluesky.documents.frame import Frame
from petif_bluesky.documents.rotation_scans import RotationScans, esperanto_of
from tango_server.recipe import Recipe
from tests.unit.documents import IMAGE, NUMBER

SWEPT = {"format": "esperanto", "esperanto": {"omega": {"during": "om"}}}
NAMED = {"format": "esperanto", "esperanto": {"omega": {"start": "om0", "end": "om1"}}}


def scan_of(recipe: Any) -> RotationScans:
    scans = RotationScans()
    scans.begin("run", recipe)
    image = {"pe_image": IMAGE}
    for uid, keys in (("d", image), ("m", {"om": NUMBER}), ("f", {**image, "om0": NUMBER, "om1": NUMBER})):
        scans.feed("descriptor", {"uid": uid, "run_start": "run", "name": uid, "data_keys": keys})
    return scans


def frame(number: int, time: float | None = None, descriptor: str = "d") -> Frame:
    event = None
    if time is not None:
        event = {"data": {}, "time": time + 5, "timestamps": {"pe_image": time}}
    return Frame(f"/raw/{number}.tif", "run", "primary", number, "pe_image", descriptor=descriptor, event=event)


def read(scans: RotationScans, time: float, value: float) -> None:
    event = {"descriptor": "m", "seq_num": 1, "time": time + 3, "data": {"om": value}, "timestamps": {"om": time}}
    scans.feed("event", event)


def test_readings_are_interpolated_at_both_ends_of_the_exposure() -> None:
    scans = scan_of(SWEPT)
    for time in range(10):
        read(scans, 100.0 + time, 2.0 * time)
    one = frame(1, 104.5)
    assert scans.take(one, 1.0) == one
    assert scans.angles(one, 1.0) == pytest.approx({"om:start": 7.0, "om:end": 9.0})
    bent = frame(2, 109.0)
    read(scans, 110.0, 100.0)
    assert scans.angles(bent, 2.5) == pytest.approx({"om:start": 13.0, "om:end": 18.0})
    scans = scan_of(SWEPT)
    for time in (3, 1, 2, 1, 0, 3):  # in any order, and twice
        read(scans, 100.0 + time, 2.0 * time)
    assert scans.angles(frame(1, 102.5), 2.0) == pytest.approx({"om:start": 1.0, "om:end": 5.0})


def test_a_frame_is_held_until_the_readings_reach_its_exposure() -> None:
    scans = scan_of(SWEPT)
    assert scans.take(frame(1, 101.0), 1.0) is None
    read(scans, 101.0, 2.0)
    assert scans.released("run") == []
    read(scans, 102.0, 4.0)
    assert scans.released("run") == [frame(1, 101.0)]
    assert scans.angles(frame(1, 101.0), 1.0) == pytest.approx({"om:start": 0.0, "om:end": 2.0})
    assert scans.released("run") == []


@pytest.mark.parametrize(("interval", "exposure"), [(0.1, 0.5), (0.5, 0.1)])
def test_readings_are_extended_by_one_exposure_or_interval_and_no_more(interval: float, exposure: float) -> None:
    scans = scan_of(SWEPT)
    read(scans, 100.0, 0.0)
    read(scans, 100.0 + interval, interval)
    last = 100.0 + interval + 0.5
    assert scans.take(frame(1, last - 0.01), exposure) is not None
    assert scans.take(frame(2, last + 0.01), exposure) is None
    assert scans.angles(frame(2, last + 0.01), exposure) == pytest.approx({"om:start": last + 0.01 - exposure - 100})
    assert scans.end("run") == [frame(2, last + 0.01)]
    assert scans.end("run") == []


def test_frames_without_events_get_those_of_their_number() -> None:
    early, late = frame(1, descriptor="f"), frame(2, descriptor="f")
    page = {
        "descriptor": "f",
        "seq_num": [1, 2],
        "time": [10.0, 11.0],
        "data": {"om0": [1.0, 2.0], "om1": [2.0, 3.0]},
        "timestamps": {"om0": [10.0, 11.0], "om1": [10.0, 11.0]},
    }
    scans = scan_of(NAMED)
    assert scans.take(early, 1.0) is None
    scans.feed("event_page", page)
    (whole,) = scans.released("run")
    assert whole.event is not None
    assert whole.event["data"] == {"om0": 1.0, "om1": 2.0}
    second = scans.take(late, 1.0)
    assert second is not None
    assert second.event is not None
    assert second.event["data"] == {"om0": 2.0, "om1": 3.0}
    assert scans.take(frame(3, descriptor="f"), 1.0) is None
    assert scans.end("run") == [frame(3, descriptor="f")]


@pytest.mark.parametrize(
    "recipe",
    [
        None,
        {},
        Recipe.preset("xdi").model_dump(mode="json"),
        {"format": "esperanto", "esperanto": {"omega": {}}},
        "xdi",
    ],
)
def test_other_runs_pass_at_once(recipe: Any) -> None:
    assert esperanto_of(recipe) is None
    scans = scan_of(recipe)
    one = frame(1, descriptor="f")
    assert scans.take(one, 1.0) is one
    assert not scans.concern(one)
    assert scans.angles(one, 1.0) == {}


def test_a_run_that_has_ended_is_forgotten() -> None:
    scans = scan_of(SWEPT)
    scans.take(frame(1, 101.0), 1.0)
    scans.forget("run")
    assert scans.released("run") == scans.end("run") == []
    read(scans, 101.0, 2.0)
    assert scans.take(frame(1, 101.0), 1.0) is not None
