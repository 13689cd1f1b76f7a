"""The stream `converted`: what becomes of reports in documents, and what readers of catalogues make of it."""

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import event_model
import numpy as np
import pytest
from bluesky.utils import RunEngineInterrupted

from petif_bluesky.plan_stubs.converted_stream import ConvertedFrames, FrameStream, ImageStream, PageStream, in_order
from petif_bluesky.testing.fake_server import PATIENCE
from petif_bluesky.testing.reports import converted_beside
from tango_server.messages import FrameReport, FrameRequest
from tests.unit.documents import Recorder
from tests.unit.lab import Lab

Consolidator = Callable[[dict[str, Any], dict[str, Any]], Any]


def bluesky_consolidator(resource: dict[str, Any], descriptor: dict[str, Any]) -> Any:
    from bluesky.consolidators import consolidator_factory

    return consolidator_factory(resource, descriptor)


def tiled_consolidator(resource: dict[str, Any], descriptor: dict[str, Any]) -> Any:
    from bluesky_tiled_plugins.writing.consolidators import consolidator_factory

    return consolidator_factory(resource, descriptor)


def report(number: int = 1, **changes: Any) -> FrameReport:
    fields: dict[str, Any] = {
        "job_id": f"job-{number}",
        "source": f"/data/raw/p-{number}.tif",
        "output": f"/data/processed/p-{number}.tif",
        "outcome": "converted",
        "shape": (30, 20),
        "pixel_type": "int32",
        "conversion_time": 0.25,
        "latency": 0.5,
        "finished": 1.7e9 + number,
        "stream": "primary",
        "seq_num": number,
    }
    return FrameReport(**{**fields, **changes})


FAILED: dict[str, Any] = {"outcome": "failed", "output": None, "shape": None, "reason": "no TIFF", "latency": None}


def image_of(frames: ConvertedFrames, each: FrameReport) -> ImageStream:
    """The stream of a frame with an image, showing it."""
    stream = frames.show([each], deque([0]))
    assert isinstance(stream, ImageStream)
    return stream


def pages_of(reports: list[FrameReport]) -> list[tuple[FrameStream, int]]:
    """The pages of these frames: stream, and number of frames."""
    frames, pending, found = ConvertedFrames("converter"), deque(range(len(reports))), []
    while pending:
        before = len(pending)
        stream = frames.show(reports, pending)
        found.append((stream, before - len(pending)))
    return found


def asset_documents(stream: ImageStream) -> tuple[dict[str, Any], dict[str, Any]]:
    documents = dict(stream.collect_asset_docs())
    for name, document in documents.items():
        event_model.schema_validators[event_model.DocumentNames[name]].validate(document)
    return dict(documents["stream_resource"]), dict(documents["stream_datum"])


def data_uris(consolidator: Consolidator, reports: list[FrameReport]) -> list[str]:
    """The files that a reader takes for the images of these frames, each resource on its own."""
    frames = ConvertedFrames("converter")
    found: list[str] = []
    for each in reports:
        stream = image_of(frames, each)
        resource, datum = asset_documents(stream)
        reader = consolidator(resource, {"data_keys": stream.describe()})
        reader.consume_stream_datum({**datum, "seq_nums": {"start": 1, "stop": 2}})
        assert reader.datum_shape == (1, 30, 20)
        assert reader.structure().data_type.to_numpy_dtype() == np.dtype("<i4")
        found += [asset.data_uri for asset in reader.get_data_source().assets]
    return found


NAMES = ["p-00001.tif", "p-00001-00001.tif", "a b.tiff", "50%_%05d_%s.tif", "{x}{:s}{0}.tif", "naïve.tif", "%6.6d.tif"]


@pytest.mark.parametrize("consolidator", [bluesky_consolidator, tiled_consolidator], ids=["bluesky", "tiled"])
@pytest.mark.parametrize("name", NAMES)
def test_readers_find_each_file_by_name(consolidator: Consolidator, name: str) -> None:
    reports = [report(1, output="/data/other/first.tif"), report(2, output=f"/data/processed/{name}")]
    assert data_uris(consolidator, reports)[1] == f"file://localhost/data/processed/{name}"


def test_files_of_different_folders_make_one_array_for_tiled() -> None:
    outputs = ["/data/2026/11/24/p-1.tif", "/data/2026/11/25/p-2.tif", "/data/2026/11/25/p-7.tif"]
    frames = ConvertedFrames("converter")
    reader: Any = None
    for number, output in enumerate(outputs, start=1):
        stream = image_of(frames, report(number, output=output))
        resource, datum = asset_documents(stream)
        if reader is None:
            reader = tiled_consolidator(resource, {"data_keys": stream.describe()})
        else:
            reader.update_from_stream_resource(resource)
        patch = reader.consume_stream_datum({**datum, "seq_nums": {"start": number, "stop": number + 1}})
        assert patch.offset[0] == number - 1
    assert [asset.data_uri for asset in reader.assets] == [f"file://localhost{output}" for output in outputs]
    assert reader.shape == (3, 1, 30, 20)  # as that of raw frames


@pytest.mark.parametrize(
    ("output", "uri"),
    [
        ("X:\\data\\processed\\p.tif", "file://localhost/X:/data/processed/p.tif"),
        ("\\\\nas\\data\\p.tif", "file://nas/data/p.tif"),
    ],
    ids=["drive", "share"],
)
def test_files_of_a_windows_server_have_uris(output: str, uri: str) -> None:
    assert data_uris(tiled_consolidator, [report(output=output)]) == [uri]


def streams_of(reports: list[FrameReport]) -> list[str]:
    return [stream.stream for stream, frames in pages_of(reports) for _ in range(frames)]


@pytest.mark.parametrize(
    ("changes", "stream"),
    [
        ({}, "converted"),
        ({"outcome": "placeholder"}, "converted"),
        ({"output": "/elsewhere/p.tif"}, "converted"),
        ({"shape": (20, 30)}, "converted-2"),
        ({"pixel_type": "uint16"}, "converted-2"),
        ({"pages": 2}, "converted-2"),
        ({"output": "/data/p.esperanto"}, "converted-2"),
        ({"output": "/data/p#1.tif"}, "converted-2"),
        (FAILED, "unconverted"),
        ({"outcome": "skipped", "shape": None}, "unconverted"),
    ],
)  # fmt: skip
def test_each_stream_has_images_of_one_structure(changes: dict[str, Any], stream: str) -> None:
    assert streams_of([report(1), report(2, **changes), report(3)]) == ["converted", stream, "converted"]


@pytest.mark.parametrize("output", ["/data/p.esperanto", "/data/p?.tif", "/data/p.TIF"])
def test_unreadable_output_has_no_image(output: str) -> None:
    ((stream, _),) = pages_of([report(output=output)])
    assert stream.stream == "converted"
    assert isinstance(stream, PageStream)
    assert "converter_image" not in stream.describe_collect()
    (page,) = stream.collect_pages()
    assert page["data"]["converter_output"] == [output]


KINDS = {"string": str, "integer": int, "number": float}


def test_readings_match_their_description_and_time() -> None:
    each = report(stream=None, seq_num=None, latency=None)
    stream = image_of(ConvertedFrames("converter"), each)
    described, reading = stream.describe(), stream.read()
    assert reading.keys() == described.keys() - {"converter_image"}
    assert {key: type(value["value"]) for key, value in reading.items()} == {
        key: KINDS[described[key]["dtype"]] for key in reading
    }
    assert {value["timestamp"] for value in reading.values()} == {each.finished}


@pytest.mark.parametrize("changes", [{"output": "/data/p.esperanto"}, FAILED], ids=["converted", "unconverted"])
def test_pages_match_their_description_and_times(changes: dict[str, Any]) -> None:
    reports = [report(1, **changes), report(2, **{**changes, "latency": None})]
    ((stream, frames),) = pages_of(reports)
    assert frames == 2
    assert isinstance(stream, PageStream)
    described = stream.describe_collect()
    (page,) = stream.collect_pages()
    assert page["data"].keys() == page["timestamps"].keys() == described.keys()
    for key, values in page["data"].items():
        assert [type(value) for value in values] == [KINDS[described[key]["dtype"]]] * 2
        assert page["timestamps"][key] == [each.finished for each in reports]


def test_streams_without_a_shown_frame_cannot_be_read() -> None:
    stream = image_of(ConvertedFrames("converter"), report())
    stream.forget()
    with pytest.raises(RuntimeError, match="Call show first"):
        stream.read()
    with pytest.raises(RuntimeError, match="Call show first"):
        list(PageStream("converter", "converted").collect_pages())


def test_a_page_has_consecutive_frames_of_one_stream_without_images() -> None:
    text: dict[str, Any] = {"output": "/data/p.esperanto"}
    kinds: list[dict[str, Any]] = [text, text, FAILED, FAILED, FAILED, text, {}, {}, text]
    pages = pages_of([report(number, **changes) for number, changes in enumerate(kinds, start=1)])
    assert [(stream.stream, frames) for stream, frames in pages] == [
        ("converted", 2),
        ("unconverted", 3),
        ("converted", 1),
        ("converted-2", 1),
        ("converted-2", 1),
        ("converted", 1),
    ]
    many = [report(number, **text) for number in range(2500)]
    assert [frames for _, frames in pages_of(many)] == [1000, 1000, 500]


def test_frames_are_emitted_in_event_order() -> None:
    reports = [report(7), report(3), report(9, stream="dark"), report(1)]
    assert in_order(reports, range(1, len(reports))) == [3, 1, 2]
    several = [report(1, frame=2), report(2, frame=3), report(1, frame=0), report(1, frame=1)]
    assert in_order(several, range(len(several))) == [2, 3, 0, 1]


@pytest.fixture(autouse=True)
def subscribed(request: pytest.FixtureRequest) -> None:
    """Where there is a lab, its documents go to the callback, too."""
    if "lab" in request.fixturenames:
        request.getfixturevalue("run_engine").subscribe(request.getfixturevalue("callback"))


def values(recorder: Recorder, stream: str, key: str) -> list[Any]:
    return [event["data"][f"converter_{key}"] for event in recorder.stream(stream)]


def check_images(recorder: Recorder, stream: str = "converted") -> None:
    """Each event of a stream has one image, that of its output."""
    (descriptor,) = [document for document in recorder.of("descriptor") if document["name"] == stream]
    resources = {document["uid"]: document for document in recorder.of("stream_resource")}
    datums = [document for document in recorder.of("stream_datum") if document["descriptor"] == descriptor["uid"]]
    paths = []
    for number, datum in enumerate(datums):
        assert datum["seq_nums"] == {"start": number + 1, "stop": number + 2}
        resource = resources[datum["stream_resource"]]
        assert resource["run_start"] == descriptor["run_start"]
        paths.append(
            resource["uri"].removeprefix("file://localhost")
            + resource["parameters"]["template"].format(datum["indices"]["start"])
        )
    assert paths == values(recorder, stream, "output")
    assert [event["seq_num"] for event in recorder.stream(stream)] == list(range(1, len(paths) + 1))


def test_run_has_an_event_per_frame(lab: Lab) -> None:
    lab.run(bp.count([lab.detector], num=3))
    lab.recorder.check()
    check_images(lab.recorder)
    names = [event["data"]["pe_full_file_name"] for event in lab.recorder.stream("primary")]
    assert values(lab.recorder, "converted", "raw") == names
    assert values(lab.recorder, "converted", "seq_num") == [1, 2, 3]
    assert set(values(lab.recorder, "converted", "stream")) == {"primary"}
    assert set(values(lab.recorder, "converted", "outcome")) == {"converted"}


def test_run_has_events_for_every_outcome(lab: Lab) -> None:
    kinds: dict[int | None, dict[str, Any]] = {
        2: {"outcome": "failed", "output": None, "shape": None, "pixel_type": None, "reason": "no TIFF"},
        3: {"outcome": "placeholder"},
        4: {"shape": (16, 16)},
    }
    whole = lab.server.report

    def different(request: FrameRequest) -> FrameReport:
        return whole(request).model_copy(update=kinds.get(request.seq_num, {}))

    lab.server.report = different
    lab.run(bp.count([lab.detector], num=5))
    lab.recorder.check()
    check_images(lab.recorder)
    check_images(lab.recorder, "converted-2")
    assert values(lab.recorder, "converted", "outcome") == ["converted", "placeholder", "converted"]
    assert values(lab.recorder, "converted-2", "seq_num") == [4]
    assert (
        values(lab.recorder, "unconverted", "seq_num"),
        values(lab.recorder, "unconverted", "reason"),
    ) == ([2], ["no TIFF"])
    assert lab.recorder.of("stop")[0]["exit_status"] == "success"


def test_wait_point_gives_converted_frames_per_point(lab: Lab) -> None:
    seen: list[list[int | None]] = []

    def look_after_each(readables: Any) -> Any:
        yield from bps.one_shot(readables)
        seen.append([each.seq_num for each in lab.converter.reports])

    lab.run(bp.count([lab.detector], num=3, per_shot=look_after_each), wait="point")
    lab.recorder.check()
    check_images(lab.recorder)
    assert seen == [[1], [1, 2], [1, 2, 3]]
    descriptors = {document["uid"]: document["name"] for document in lab.recorder.of("descriptor")}
    order = [descriptors[event["descriptor"]] for event in lab.recorder.events()]
    assert order == ["primary", "converted"] * 3 + ["conversion"]


def test_pause_while_waiting_repeats_no_point(lab: Lab) -> None:
    lab.server.converts = False
    waiting = threading.Event()
    lab.server.on_follow = waiting.set
    pauser = threading.Thread(target=lambda: waiting.wait(PATIENCE) and lab.run_engine.request_pause())
    pauser.start()
    with pytest.raises(RunEngineInterrupted):
        lab.run(bp.count([lab.detector], num=2), wait="point")
    pauser.join(PATIENCE)
    lab.server.until(lambda: len(lab.server.requests) == 1)
    lab.server.converts = True
    lab.run_engine.resume()
    lab.recorder.check()
    check_images(lab.recorder)
    assert [event["seq_num"] for event in lab.recorder.stream("primary")] == [1, 2]
    assert lab.recorder.of("stop")[0]["exit_status"] == "success"


def without_images(request: FrameRequest) -> FrameReport:
    return converted_beside(request).model_copy(update={"output": f"{request.source}.esperanto"})


def test_frames_without_images_come_in_one_page(lab: Lab) -> None:
    lab.server.report = without_images
    lab.run(bp.count([lab.detector], num=5))
    lab.recorder.check()
    (page,) = lab.recorder.of("event_page")
    assert page["seq_num"] == [1, 2, 3, 4, 5]
    assert values(lab.recorder, "converted", "seq_num") == [1, 2, 3, 4, 5]
    assert lab.recorder.of("stop")[0]["num_events"] == {"primary": 5, "converted": 5, "conversion": 1}


def test_wait_point_gives_a_page_per_point(lab: Lab) -> None:
    lab.server.report = without_images
    lab.run(bp.count([lab.detector], num=3), wait="point")
    lab.recorder.check()
    assert [page["seq_num"] for page in lab.recorder.of("event_page")] == [[1], [2], [3]]
    assert len([document for document in lab.recorder.of("descriptor") if document["name"] == "converted"]) == 1


@pytest.mark.parametrize("wait", ["run", "point"])
def test_pause_at_a_page_emits_it_once(lab: Lab, wait: Literal["run", "point"]) -> None:
    lab.server.report = without_images
    pausers: list[threading.Thread] = []

    def pause_once(_name: str, descriptor: Any) -> None:
        if descriptor["name"] == "converted":  # the pause takes effect one message later: after `collect`
            pausers.append(threading.Thread(target=lab.run_engine.request_pause))
            pausers[0].start()
            time.sleep(0.1)  # until the request is in the queue of the event loop, which this callback blocks

    lab.run_engine.subscribe(pause_once, "descriptor")
    with pytest.raises(RunEngineInterrupted):
        lab.run(bp.count([lab.detector], num=3), wait=wait)
    pausers[0].join(PATIENCE)
    lab.run_engine.resume()
    lab.recorder.check()
    for stream in ("primary", "converted"):
        assert [event["seq_num"] for event in lab.recorder.stream(stream)] == [1, 2, 3]
    assert values(lab.recorder, "converted", "seq_num") == [1, 2, 3]
    assert lab.recorder.of("stop")[0]["exit_status"] == "success"


def test_point_after_a_page_is_repeated_by_a_pause(lab: Lab) -> None:
    lab.server.report = without_images
    pausing = iter([False, True])

    def pause_in_second(readables: Any) -> Any:
        if next(pausing, False):
            yield from bps.checkpoint()
            yield from bps.null()
            yield from bps.pause()
        yield from bps.one_shot(readables)

    lab.run_engine.msg_hook = (messages := []).append
    with pytest.raises(RunEngineInterrupted):
        lab.run(bp.count([lab.detector], num=2, per_shot=pause_in_second), wait="point")
    lab.run_engine.resume()
    assert [message.command for message in messages].count("null") == 2
    assert [event["seq_num"] for event in lab.recorder.stream("converted")] == [1, 2]


def test_late_points_are_emitted_at_the_end(lab: Lab) -> None:
    lab.converter.drain_timeout = 0.05
    lab.server.converts = False

    def convert_at_last(readables: Any) -> Any:
        yield from bps.one_shot(readables)
        frames = len(lab.recorder.stream("primary"))
        lab.server.until(lambda: len(lab.server.requests) == frames)
        lab.server.converts = frames == 3

    lab.run(bp.count([lab.detector], 3, per_shot=convert_at_last), wait="point")
    lab.recorder.check()
    check_images(lab.recorder)
    assert values(lab.recorder, "converted", "seq_num") == [1, 2, 3]
    assert values(lab.recorder, "conversion", "submitted") == [3]
    assert lab.recorder.of("stop")[0]["exit_status"] == "success"


def test_missing_reports_do_not_fail_the_run(monkeypatch: pytest.MonkeyPatch, lab: Lab) -> None:
    def fail(_run_uid: str) -> list[FrameReport]:
        raise RuntimeError("an answer from another world")

    monkeypatch.setattr(lab.server, "reports", fail)
    lab.run(bp.count([lab.detector], num=2))
    lab.recorder.check()
    assert lab.recorder.stream("converted") == []
    assert (
        values(lab.recorder, "conversion", "converted"),
        values(lab.recorder, "conversion", "drained"),
    ) == ([2], [True])


def test_unknown_run_has_no_reports(tmp_path: Path, lab: Lab) -> None:
    lab.converter.drain_timeout = 0.2
    lab.run(bp.count([], num=1))
    assert lab.recorder.of("stop")[0]["num_events"] == {"conversion": 1}
