"""Frames of rotation scans wait for the readings that their angles come from, and no others wait."""

from typing import Any

import pytest

from petif_bluesky.documents.frame import Frame
from petif_bluesky.documents.rotation_angles import RotationAngles, esperanto_of
from tango_server.recipe import Recipe
from tests.unit.documents import IMAGE, IN_STREAM, NUMBER, FrameFinder

SWEPT = {"format": "esperanto", "esperanto": {"omega": {"during": "om"}}}
NAMED = {"format": "esperanto", "esperanto": {"omega": {"start": "om0", "end": "om1"}}}
EXPOSURE = {"pe": {"data": {"pe_exposure_time": 1.0}}}


def swept() -> RotationAngles:
    esperanto = esperanto_of(SWEPT)
    assert esperanto is not None
    return RotationAngles(esperanto)


def reading(time: float, value: float) -> dict[str, Any]:
    return {"descriptor": "m", "seq_num": 1, "time": time + 3, "data": {"om": value}, "timestamps": {"om": time}}


class Scan:
    """A run with frames that bring events (`d`), readings (`m`), and frames of stream datums with events (`f`)."""

    def __init__(self, recipe: Any, **settings: Any) -> None:
        self._finder = FrameFinder(**settings)
        self.feed("start", {"uid": "run", "conversion": {"recipe": recipe}})
        stream = {"pe_image": IN_STREAM}
        for uid, keys in (
            ("d", {"pe_image": IMAGE}),
            ("m", {"om": NUMBER}),
            ("f", {**stream, "om0": NUMBER, "om1": NUMBER}),
        ):
            described = {"uid": uid, "run_start": "run", "name": uid, "data_keys": keys, "configuration": EXPOSURE}
            self.feed("descriptor", described)
        settings = {"template": "%s%s%d.tif", "filename": ""}
        resource = {"uid": "r", "run_start": "run", "spec": "AD_TIFF", "root": "/", "resource_path": "raw"}
        self.feed("resource", {**resource, "resource_kwargs": settings})
        stream_resource = {"uid": "s", "run_start": "run", "data_key": "pe_image", "mimetype": "image/tiff"}
        many = {"mimetype": "multipart/related;type=image/tiff", "parameters": {"template": "{}.tif"}}
        self.feed("stream_resource", {**stream_resource, **many, "uri": "file:///raw/"})

    def feed(self, name: str, document: Any) -> list[Frame]:
        return self._finder.feed(name, document)

    def read(self, time: float, value: float) -> list[Frame]:
        return self.feed("event", reading(time, value))

    def frame(self, number: int, time: float) -> list[Frame]:
        self.feed("datum", {"datum_id": f"r/{number}", "resource": "r", "datum_kwargs": {"point_number": number}})
        shown = {"data": {"pe_image": f"r/{number}"}, "timestamps": {"pe_image": time}}
        return self.feed("event", {"descriptor": "d", "seq_num": number, "time": time + 5, **shown})

    def stream_frame(self, number: int) -> list[Frame]:
        indices = {"start": number, "stop": number + 1}
        return self.feed(
            "stream_datum", {"stream_resource": "s", "descriptor": "f", "indices": indices, "seq_nums": indices}
        )


def angles(frames: list[Frame]) -> list[dict[str, float]]:
    return [{name: value for name, value in frame.metadata.items() if ":" in name} for frame in frames]


def test_readings_are_interpolated_at_both_ends_of_the_exposure() -> None:
    readings = swept()
    for time in range(10):
        readings.read(reading(100.0 + time, 2.0 * time))
    assert readings.at(104.5, 1.0) == (pytest.approx({"om:start": 7.0, "om:end": 9.0}), True)
    readings.read(reading(110.0, 100.0))
    assert readings.at(109.0, 2.5) == (pytest.approx({"om:start": 13.0, "om:end": 18.0}), True)
    readings = swept()
    for time in (3, 1, 2, 1, 0, 3):  # in any order, and twice
        readings.read(reading(100.0 + time, 2.0 * time))
    assert readings.at(102.5, 2.0) == (pytest.approx({"om:start": 1.0, "om:end": 5.0}), True)


def test_frame_waits_until_readings_cover_its_exposure() -> None:
    scan = Scan(SWEPT)
    assert scan.frame(1, 101.0) == []
    assert scan.read(101.0, 2.0) == []
    released = scan.read(102.0, 4.0)
    assert [frame.path for frame in released] == ["/raw/1.tif"]
    assert angles(released) == [pytest.approx({"om:start": 0.0, "om:end": 2.0})]
    assert scan.read(103.0, 6.0) == []
    assert angles(scan.frame(2, 102.5)) == [pytest.approx({"om:start": 3.0, "om:end": 5.0})]


@pytest.mark.parametrize(("interval", "exposure"), [(0.1, 0.5), (0.5, 0.1)])
def test_readings_are_extrapolated_within_limits(interval: float, exposure: float) -> None:
    readings = swept()
    readings.read(reading(100.0, 0.0))
    readings.read(reading(100.0 + interval, interval))
    last = 100.0 + interval + 0.5
    assert readings.at(last - 0.01, exposure)[1]
    assert readings.at(last + 0.01, exposure) == (pytest.approx({"om:start": last + 0.01 - exposure - 100}), False)


def test_frame_without_readings_is_sent_at_the_stop() -> None:
    scan = Scan(SWEPT)
    scan.read(100.0, 0.0)
    scan.read(100.5, 0.5)
    assert scan.frame(1, 101.6) == []
    (frame,) = scan.feed("stop", {"run_start": "run"})
    assert (frame.path, angles([frame])) == ("/raw/1.tif", [pytest.approx({"om:start": 0.6})])


def test_frames_without_events_get_angles_by_seq_num() -> None:
    scan = Scan(NAMED)
    page = {
        "uid": ["x", "y"],
        "descriptor": "f",
        "seq_num": [1, 2],
        "time": [10.0, 11.0],
        "data": {"om0": [1.0, 2.0], "om1": [2.0, 3.0]},
        "timestamps": {"om0": [10.0, 11.0], "om1": [10.0, 11.0]},
    }
    assert scan.stream_frame(1) == []
    assert [frame.metadata["om0"] for frame in scan.feed("event_page", page)] == [1.0]
    assert [frame.metadata["om0"] for frame in scan.stream_frame(2)] == [2.0]
    assert scan.stream_frame(3) == scan.stream_frame(4) == []
    left = scan.feed("stop", {"run_start": "run"})
    assert [(frame.seq_num, "om0" in frame.metadata) for frame in left] == [(3, False), (4, False)]


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
def test_other_runs_are_not_delayed(recipe: Any) -> None:
    assert esperanto_of(recipe) is None
    (frame,) = Scan(recipe).frame(1, 101.0)
    assert (frame.recipe, angles([frame])) == (recipe, [{}])


def test_finding_names_does_not_wait_for_readings() -> None:
    (frame,) = Scan(SWEPT, recipe_of=lambda _start: None).frame(1, 101.0)
    assert frame.path == "/raw/1.tif"
