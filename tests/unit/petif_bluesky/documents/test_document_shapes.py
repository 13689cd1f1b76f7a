"""Every shape of documents gives its frames, in whatever company; what can't be followed is told."""

import copy
import itertools
import json
from typing import Any

import event_model
import pytest

from petif_bluesky.documents.errors import MalformedDocumentError, TemplateError, UnknownDescriptorError
from petif_bluesky.documents.frame import Frame
from petif_bluesky.documents.selection import FrameSelection
from petif_bluesky.documents.uris import path_of_uri
from petif_bluesky.frames import FrameRouter
from tango_server.conversion.files.path_map import PathMap
from tests.unit.document_shapes import SHAPES, described
from tests.unit.documents import IMAGE, IN_STREAM, NAME, NUMBER, ComposedRun, Document, FrameFinder, replay

FOLDER = "/data/raw"


def found(finder: FrameFinder, documents: list[tuple[str, Document]]) -> list[Frame]:
    return [frame for frames in replay(documents, finder.feed) for frame in frames]


def flying(finder: FrameFinder | None = None, *, motor: bool = False, **image: Any) -> ComposedRun:
    """A run whose detector flies; with a motor it steps, and the motor is read in each event."""
    run = ComposedRun((finder or FrameFinder()).feed)
    stream, others = ("primary", {"motor": {"position": NUMBER}}) if motor else ("fly", {})
    run.stream(stream, det={"image": {**IN_STREAM, **image}}, **others)
    return run


@pytest.mark.parametrize("name", SHAPES)
def test_each_shape_gives_every_frame_once(name: str) -> None:
    shape = SHAPES[name](FOLDER)
    before = copy.deepcopy(shape.documents)
    finder = FrameFinder()
    assert described(found(finder, shape.documents)) == shape.expected
    assert shape.documents == before
    assert finder.knows_nothing()
    again = FrameFinder()
    twice = [pair for pair in shape.documents for _ in range(2)]
    assert sorted(described(found(again, twice))) == sorted(shape.expected)
    assert again.knows_nothing()


def test_interleaved_shapes_give_the_same_frames() -> None:
    shapes = [build(FOLDER) for build in SHAPES.values()]
    finder = FrameFinder()
    mixed = [pair for row in itertools.zip_longest(*(shape.documents for shape in shapes)) for pair in row if pair]
    frames = found(finder, mixed)
    for shape in shapes:
        uid = shape.documents[0][1]["uid"]
        assert described([frame for frame in frames if frame.run_uid == uid]) == shape.expected
    assert finder.knows_nothing()


@pytest.mark.parametrize(
    ("template", "parameters", "shape"),
    [
        pytest.param("a_{:06d}.tiff", {}, [1, 48, 64], id="one"),
        pytest.param("a_{:d}.tif", {}, [3, 48, 64], id="three-files-for-an-index"),
        pytest.param("a_{:d}.tif", {"chunk_shape": [2, 48, 64]}, [4, 48, 64], id="two-frames-in-a-file"),
        pytest.param("a_{:d}.tif", {"multiplier": 2}, [1, 48, 64], id="multiplier"),
        pytest.param("a_{:d}.tif", {"join_method": "stack"}, [4, 48, 64], id="stack"),
        pytest.param("%s%s_%6.6d.tiff", {"filename": "b"}, [1, 48, 64], id="areaDetectors-template"),
        pytest.param("%s%s_%3d.tif", {"filename": "b"}, [1, 48, 64], id="blanks"),
        pytest.param("literal.tif", {}, [1, 48, 64], id="literal"),
    ],
)
def test_stream_files_match_blueskys_consolidator(template: str, parameters: dict[str, Any], shape: list[int]) -> None:
    from bluesky.consolidators import TIFFConsolidator

    run = flying(shape=shape)
    datum = run.stream_resource("det_image", "file://localhost/data/", template, **parameters)
    frames = datum(2, 5, stream="fly", seq_num=3)
    (descriptor,) = run.recorder.of("descriptor")
    reference = TIFFConsolidator(copy.deepcopy(run.recorder.of("stream_resource")[0]), descriptor)
    for document in run.recorder.of("stream_datum"):
        reference.consume_stream_datum(document)
    unique = list(dict.fromkeys(path_of_uri(asset.data_uri) for asset in reference.assets))
    assert [frame.path for frame in frames] == unique
    assert [frame.metadata["shape"] for frame in frames] == len(frames) * [[48, 64]]
    assert {frame.seq_num for frame in frames} <= {3, 4, 5}


def test_two_dimensional_shape_is_one_frame() -> None:
    (frame,) = flying(shape=[48, 64]).stream_resource("det_image", "file:///d/", "{:d}.tif")(0, 1, stream="fly")
    assert (frame.path, frame.metadata["shape"]) == ("/d/0.tif", [48, 64])


def test_step_scan_frames_have_events_and_fly_scan_frames_none() -> None:
    for name in ("resource", "step_scan_of_streams", "names_only"):
        shape = SHAPES[name](FOLDER)
        times = [document["time"] for kind, document in shape.documents if kind == "event"]
        assert [frame.metadata["time"] for frame in found(FrameFinder(), shape.documents)] == times
    assert not any("time" in frame.metadata for frame in found(FrameFinder(), SHAPES["fly_scan"](FOLDER).documents))


def test_frames_do_not_wait_forever_for_missing_events() -> None:
    finder = FrameFinder()
    run = flying(finder, motor=True)
    datum = run.stream_resource("det_image", "file:///d/", "{:d}.tif")
    assert datum(0, 1, seq_num=1) == []
    assert [frame.path for frame in datum(1, 2, seq_num=2)] == ["/d/0.tif", "/d/1.tif"]
    other = flying(finder, motor=True)
    assert other.stream_resource("det_image", "file:///e/", "{:d}.tif")(0, 1, seq_num=1) == []
    (frame,) = finder.feed("stop", {"run_start": other.uid})
    assert (frame.path, "time" in frame.metadata) == ("/e/0.tif", False)


def test_reported_name_applies_to_a_later_stream_datum() -> None:
    run = ComposedRun(FrameFinder().feed)
    run.stream(det={"image": IN_STREAM, "full_file_name": NAME})
    datum = run.stream_resource("det_image", "file:///d/", "{:d}.tif")
    assert run.event(det_full_file_name="/d/0-00001.tif") == []
    (frame,) = datum(0, 1, seq_num=1)
    assert (frame.path, "time" in frame.metadata) == ("/d/0-00001.tif", True)


@pytest.mark.parametrize("event_first", [True, False])
def test_one_reported_name_for_two_images_loses_no_frame(event_first: bool) -> None:
    finder = FrameFinder()
    run = ComposedRun(finder.feed)
    run.stream(det={"image": IN_STREAM, "other_image": IN_STREAM, "full_file_name": NAME})
    first, second = (
        run.stream_resource(f"det_{key}", f"file:///{key}/", "{:d}.tif") for key in ("image", "other_image")
    )
    steps = [lambda: first(0, 1, seq_num=1), lambda: second(0, 1, seq_num=1)]
    steps.insert(0 if event_first else 2, lambda: run.event(det_full_file_name="/other_image/0.tif"))
    paths = [frame.path for step in steps for frame in step()]
    assert paths == ["/image/0.tif", "/other_image/0.tif"]


def test_invalid_event_in_a_page_does_not_affect_others() -> None:
    frames: list[Frame] = []
    router = FrameRouter(frames.extend)
    run = ComposedRun(lambda name, document: None if name == "event" else router(name, document))
    run.stream(pe={"full_file_name": NAME})
    for number in range(3):
        run.event(pe_full_file_name=f"/d/{number}.tif")
    page = event_model.pack_event_page(*run.recorder.of("event"))
    page["seq_num"][1] = ["no number"]
    with pytest.raises(MalformedDocumentError, match=r"^event_page document"):
        router("event_page", page)
    assert [frame.path for frame in frames] == ["/d/0.tif", "/d/2.tif"]


def test_stream_datum_before_its_resource_waits_for_it() -> None:
    finder = FrameFinder()
    run = flying(finder)
    source = ComposedRun(lambda _name, _document: None)
    source._streams = run._streams
    datum = source.stream_resource("det_image", "file:///d/", "{:d}.tif")
    datum(0, 2, stream="fly")
    (resource,), (document,) = source.recorder.of("stream_resource"), source.recorder.of("stream_datum")
    assert finder.feed("stream_datum", document) == []
    assert [frame.path for frame in finder.feed("stream_resource", resource)] == ["/d/0.tif", "/d/1.tif"]


def test_resource_is_shared_by_two_runs() -> None:
    finder = FrameFinder()
    first = ComposedRun(finder.feed)
    first.stream(pe={"image": IMAGE})
    datum = first.resource()
    first.event(pe_image=datum(0))
    first.stop()
    second = ComposedRun(finder.feed)
    second.stream(pe={"image": IMAGE})
    assert [frame.run_uid for frame in second.event(pe_image=datum(1))] == [second.uid]
    second.stop()
    assert finder.knows_nothing()


def test_missing_datum_is_reported_and_the_name_used() -> None:
    finder = FrameFinder()
    run = ComposedRun(finder.feed)
    run.stream(pe={"image": IMAGE, "full_file_name": NAME})
    assert run.event(pe_image="never/1", pe_full_file_name="/data/raw/a.tif") == []
    assert finder.take_notes() == []
    assert [frame.path for frame in finder.feed("stop", {"run_start": run.uid})] == ["/data/raw/a.tif"]
    (note,) = finder.take_notes()
    assert "never/1 was never announced" in note
    assert run.uid in note
    assert finder.take_notes() == []


def test_other_formats_are_reported_once_per_run() -> None:
    finder = FrameFinder()
    run = ComposedRun(finder.feed)
    run.stream(eiger={"image": IMAGE, "full_file_name": NAME})
    datum = run.resource(spec="AD_HDF5", template="%s%s_%d.h5")
    for point in range(3):
        assert run.event(eiger_image=datum(point), eiger_full_file_name="/data/all.h5") == []
    (note,) = finder.take_notes()
    assert "AD_HDF5" in note


def test_tiff_next_to_another_format_is_found() -> None:
    run = ComposedRun(FrameFinder().feed)
    run.stream(pe={"image": IMAGE, "tiff_full_file_name": NAME})
    datum = run.resource(spec="AD_HDF5", template="%s%s_%d.h5")
    (frame,) = run.event(pe_image=datum(0), pe_tiff_full_file_name="/data/raw/a.tif")
    assert (frame.path, frame.data_key) == ("/data/raw/a.tif", "pe_tiff_full_file_name")


def test_name_read_too_early_does_not_hide_a_frame() -> None:
    run = ComposedRun(FrameFinder().feed)
    run.stream(pe={"image": IMAGE, "full_file_name": NAME})
    datum = run.resource()
    names = [
        frame.path
        for point in range(2)
        for frame in run.event(pe_image=datum(point), pe_full_file_name="/data/raw/sample/sample-00000.tif")
    ]
    assert names == ["/data/raw/sample/sample-00000.tif", "/data/raw/sample/sample-00001.tif"]


@pytest.mark.parametrize(
    ("selection", "keys"),
    [
        pytest.param(FrameSelection(), ["pe1_image@dark", "pe1_image@primary", "pe2_image@primary"], id="all"),
        pytest.param(FrameSelection(detectors="pe2"), ["pe2_image@primary"], id="one-by-its-name"),
        pytest.param(FrameSelection(detectors=["pe1_*"]), ["pe1_image@dark", "pe1_image@primary"], id="pattern"),
        pytest.param(FrameSelection(without_detectors=["pe1"]), ["pe2_image@primary"], id="without-one"),
        pytest.param(FrameSelection(streams=["dark"]), ["pe1_image@dark"], id="stream"),
        pytest.param(FrameSelection(without_streams=["d*"]), ["pe1_image@primary", "pe2_image@primary"], id="no-dark"),
    ],
)
def test_detectors_and_streams_can_be_selected(selection: FrameSelection, keys: list[str]) -> None:
    frames = found(FrameFinder(selection), SHAPES["two_detectors_two_streams"](FOLDER).documents)
    assert [f"{frame.data_key}@{frame.stream}" for frame in frames] == keys


def test_resource_announced_in_an_excluded_stream_is_kept() -> None:
    """ophyd-async announces a file once, in the first stream that reads the detector."""
    finder = FrameFinder(FrameSelection(without_streams=["alignment"]))
    run = ComposedRun(finder.feed)
    run.stream("alignment", det={"image": IN_STREAM})
    datum = run.stream_resource("det_image", "file:///d/", "{:d}.tif")
    assert datum(0, 1, stream="alignment") == []
    run.stream(det={"image": IN_STREAM})
    assert [(frame.path, frame.seq_num) for frame in datum(1, 2)] == [("/d/1.tif", 1)]
    assert finder.notes == []


@pytest.mark.parametrize("first", [0, None])
def test_number_of_files_per_point_is_the_stated_one(first: int | None) -> None:
    """Some detectors describe one image as (0, rows, columns), and dimensions may be unknown."""
    run = ComposedRun(FrameFinder().feed)
    run.stream(pe={"image": {**IMAGE, "shape": [first, 48, 64]}})
    frames = run.event(pe_image=run.resource(frame_per_point=2)(0))
    assert [frame.path[-9:] for frame in frames] == ["00000.tif", "00001.tif"]


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///C:/raw/", "C:/raw/0.tif"),
        ("file://localhost/C:/raw/", "C:/raw/0.tif"),
        ("file://filer/share/raw/", "\\\\filer\\share\\raw/0.tif"),
        ("X:\\raw\\", "X:\\raw\\0.tif"),
        ("file://localhost//data//raw/", "/data/raw/0.tif"),
        ("file:///data/50%25/", "/data/50%/0.tif"),
        ("file:///data/50%/", "/data/50%/0.tif"),
        ("file:///data/a::/", "/data/a::/0.tif"),
    ],
)
def test_uris_of_all_writers_become_paths(uri: str, path: str) -> None:
    first, second = flying().stream_resource("det_image", uri, "{:d}.tif")(0, 2, stream="fly")
    assert first.path == path
    assert second.path == path.replace("0.tif", "1.tif")


def test_paths_are_translated_by_the_path_map() -> None:
    selection = FrameSelection(paths=PathMap.of(["X:\\ -> /gpfs/current"]))
    run = ComposedRun(FrameFinder(selection).feed)
    run.stream(pe={"full_file_name": NAME})
    names = ["X:\\raw\\a.tif", "Z:\\raw\\b.tif", "x:/RAW/../c.tif"]
    frames = [frame.path for name in names for frame in run.event(pe_full_file_name=name)]
    assert frames == ["/gpfs/current/raw/a.tif", "Z:\\raw\\b.tif"]


@pytest.mark.parametrize("template", ["%s%s%s%s", "%s%s_%999999999d.tif", "%s%q", "%d%s_%d.tif"])
def test_invalid_template_is_an_error(template: str) -> None:
    run = ComposedRun(FrameFinder().feed)
    with pytest.raises(TemplateError, match="needs folder, file name and number"):
        run.resource(template=template)


@pytest.mark.parametrize("template", ["{:999999999d}.tif", "{0.__class__}.tif", "{}{}.tif", "{name}.tif", "{.tif"])
def test_invalid_stream_template_is_an_error(template: str) -> None:
    with pytest.raises(TemplateError, match="needs a number"):
        flying().stream_resource("det_image", "file:///d/", template)


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        ("start", {}),
        ("descriptor", {"uid": "d", "run_start": "x"}),
        ("resource", {"uid": "r", "spec": "AD_TIFF"}),
        ("stream_resource", {"uid": "s", "data_key": "k"}),
        ("datum", {"datum_id": "r/0"}),
        ("datum", {"datum_id": "r/0", "resource": "r", "datum_kwargs": {"point_number": -1}}),
        ("event", None),
        ("event_page", {"uid": ["x"]}),
        ("stream_datum", {"uid": "x"}),
        ("stop", []),
    ],
)
def test_malformed_document_is_a_typed_error(kind: str, document: Any) -> None:
    with pytest.raises(MalformedDocumentError, match=f"^{kind} document"):
        FrameFinder().feed(kind, document)


def test_stream_datum_with_too_many_frames_is_refused() -> None:
    datum = flying().stream_resource("det_image", "file:///d/", "{:d}.tif")
    with pytest.raises(MalformedDocumentError, match="indices 0 to 1000000000"):
        datum(0, 10**9, stream="fly")


def test_converted_images_are_never_frames() -> None:
    run = ComposedRun(FrameFinder(FrameSelection(without_streams=["dark"])).feed)
    run.stream("converted", det={"image": IN_STREAM})
    assert run.stream_resource("det_image", "file:///d/", "{:d}.tif")(0, 1, stream="converted") == []


def test_event_of_an_unknown_run_is_an_error_with_a_remedy() -> None:
    with pytest.raises(UnknownDescriptorError, match="Subscribe before the run starts"):
        FrameFinder().feed("event", {"descriptor": "never", "data": {}, "seq_num": 1})


def test_abandoned_runs_are_forgotten_after_many_others() -> None:
    finder = FrameFinder()
    run = flying(finder, motor=True)
    assert run.stream_resource("det_image", "file:///d/", "{:d}.tif")(0, 1, seq_num=1) == []
    late = [frame for number in range(100) for frame in finder.feed("start", {"uid": str(number)})]
    assert [frame.path for frame in late] == ["/d/0.tif"]
    assert len(finder.router._runs) == 100
    assert f"run {run.uid}: no stop document" in finder.take_notes()[-1]


def test_memory_is_flat_over_many_runs() -> None:
    finder = FrameFinder()
    source = ComposedRun(lambda _name, _document: None)
    source.stream(pe={"image": IMAGE})
    source.event(pe_image=source.resource()(0))
    source.stop()
    for number in range(1100):
        (frame,) = found(finder, renamed(source.recorder.documents, str(number)))
        assert frame.run_uid == f"{source.uid}{number}"
    assert len(finder.router._assets) == 1000
    assert finder.knows_nothing()


def renamed(documents: list[tuple[str, Document]], suffix: str) -> list[tuple[str, Document]]:
    """The same run once more, with other uids."""
    uids = {document["uid"]: document["uid"] + suffix for _, document in documents if "uid" in document}
    text = json.dumps(documents)
    for uid, other in uids.items():
        text = text.replace(uid, other)
    return [(name, document) for name, document in json.loads(text)]
