"""From documents to files, with area-detector-handlers as the independent reader of the same documents."""

import gc
import posixpath
import re
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import pytest
from bluesky import RunEngine
from hypothesis import example, given, settings
from hypothesis import strategies as st

from petif_bluesky.documents.errors import UnknownDescriptorError
from petif_bluesky.documents.frame import Frame
from tests.unit.documents import IMAGE, NAME, NUMBER, ComposedRun, Document, FrameFinder, Recorder, replay

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=12)


@pytest.fixture
def finder() -> FrameFinder:
    return FrameFinder()


@pytest.fixture
def run(finder: FrameFinder) -> Iterator[ComposedRun]:
    run = ComposedRun(finder.feed)
    yield run
    run.recorder.check()


def paths(frames: list[Frame]) -> list[str]:
    return [frame.path for frame in frames]


def read_by_handler(documents: Recorder, datum_id: str) -> list[str]:
    """The files of a datum, according to the handler that databroker reads such documents with."""
    (datum,) = (document for document in documents.of("datum") if document["datum_id"] == datum_id)
    (resource,) = (document for document in documents.of("resource") if document["uid"] == datum["resource"])
    folder = posixpath.join(resource["root"], resource["resource_path"])
    from area_detector_handlers.handlers import AreaDetectorTiffHandler

    handler = AreaDetectorTiffHandler(folder, **resource["resource_kwargs"])
    return list(handler.get_file_list([datum["datum_kwargs"]]))


def test_frames_of_the_simulated_detector_are_the_files_it_wrote(
    finder: FrameFinder, run_engine: RunEngine, recorder: Recorder, make_detector: Callable[..., Any]
) -> None:
    run_engine(bp.count([make_detector()], num=3))
    found = [frame for frames in replay(recorder.documents, finder.feed) for frame in frames]
    assert paths(found) == [
        path for event in recorder.of("event") for path in read_by_handler(recorder, event["data"]["pe_image"])
    ]
    assert all(Path(path).is_file() for path in paths(found))
    (start,) = recorder.of("start")
    assert {(frame.run_uid, frame.stream, frame.data_key) for frame in found} == {(start["uid"], "primary", "pe_image")}
    assert [frame.seq_num for frame in found] == [1, 2, 3]
    recorder.check()


def test_frame_with_another_file_name_is_found(
    finder: FrameFinder, run_engine: RunEngine, recorder: Recorder, make_detector: Callable[..., Any], tmp_path: Path
) -> None:
    detector = make_detector()
    taken = tmp_path / "raw" / "sample" / "sample_0001-00000.tif"

    def plan() -> Any:
        yield from bps.stage(detector)
        taken.write_bytes(b"precious")
        yield from bps.open_run()
        yield from bps.trigger_and_read([detector])
        yield from bps.close_run()
        yield from bps.unstage(detector)

    run_engine(plan())
    (event,) = recorder.of("event")
    assert read_by_handler(recorder, event["data"]["pe_image"]) == [str(taken)]
    (found,) = [frame for frames in replay(recorder.documents, finder.feed) for frame in frames]
    assert Path(found.path) == taken.with_name("sample_0001-00000-00001.tif")
    assert Path(found.path).is_file()


@example([], "", "sample", "%s%s-%5.5d.tif", 1, 0)
@example(["."], "", "sample", "%s%s-%5.5d.tif", 3, 4)
@example(["raw", "sample"], "", "sample", "%s%s-%5.5d.tif", 3, 0)
@example(["raw", "sample"], "/", "sample", "%s%s-%5.5d.tif", 1, 4)
@example(["", "elsewhere", "raw"], "", "sample", "%s%s-%5.5d.tif", 3, 4)
@given(
    folder=st.lists(TEXT, max_size=3),
    slash=st.sampled_from(["", "/"]),
    filename=TEXT,
    template=st.sampled_from(["%s%s_%6.6d.tiff", "%s%s-%5.5d.tif", "%s%s%d.TIF", "%s/%s_%03d.tif"]),
    count=st.integers(1, 5),
    point=st.integers(0, 10**7),
)
@settings(max_examples=50)
def test_predicted_names_are_those_of_the_handler(
    folder: list[str], slash: str, filename: str, template: str, count: int, point: int
) -> None:
    run = ComposedRun(FrameFinder().feed)
    run.stream(pe={"image": IMAGE})
    resource = run.resource(path="/".join(folder) + slash, template=template, filename=filename, frame_per_point=count)
    datum = resource(point)
    expected = [re.sub("/{2,}", "/", path) for path in read_by_handler(run.recorder, datum)]
    frames = run.event(pe_image=datum)
    assert paths(frames) == expected
    assert len(frames) == count
    assert {frame.seq_num for frame in frames} == {1}
    run.recorder.check()


def test_one_frame_per_point_is_the_default(run: ComposedRun) -> None:
    run.stream(pe={"image": IMAGE})
    resource = {"spec": "AD_TIFF", "root": "/data", "resource_path": "raw", "uid": "r", "run_start": run.uid}
    finder = FrameFinder()
    replay(run.recorder.documents, finder.feed)
    finder.feed("resource", {**resource, "resource_kwargs": {"template": "%s%s_%d.tif", "filename": "a"}})
    finder.feed("datum", {"resource": "r", "datum_id": "r/7", "datum_kwargs": {"point_number": 7}})
    run.event(pe_image="r/7")
    assert paths(finder.feed(*run.recorder.documents[-1])) == ["/data/raw/a_7.tif"]


@pytest.mark.parametrize(
    ("root", "path", "folder"),
    [
        pytest.param("C:\\", "raw\\sample", "C:\\raw\\sample\\", id="drive"),
        pytest.param("C:\\", "raw\\sample\\", "C:\\raw\\sample\\", id="trailing-separator"),
        pytest.param("C:\\data", "raw", "C:\\data\\raw\\", id="folder"),
        pytest.param("\\\\server\\share", "raw", "\\\\server\\share\\raw\\", id="share"),
        pytest.param("", "X:\\raw", "X:\\raw\\", id="no-root"),
        pytest.param("X:/", "raw/sample/", "X:/raw/sample/", id="slashes"),
        pytest.param("/", "gpfs/raw", "/gpfs/raw/", id="read-path-of-posix"),
        pytest.param("/gpfs", "raw/", "/gpfs/raw/", id="read-path-of-posix-below-a-root"),
        pytest.param("", "/gpfs/raw", "/gpfs/raw/", id="read-path-of-posix-no-root"),
    ],
)
def test_windows_paths_are_joined_as_windows_does(root: str, path: str, folder: str, run: ComposedRun) -> None:
    run.stream(pe={"image": IMAGE})
    resource = run.resource(root=root, path=path, windows=True)
    assert paths(run.event(pe_image=resource(2))) == [f"{folder}sample-00002.tif"]


def test_reported_name_overrides_the_template(run: ComposedRun) -> None:
    run.stream(pe={"image": IMAGE, "tiff_full_file_name": NAME})
    frames = run.event(pe_image=run.resource()(0), pe_tiff_full_file_name="/data/raw/sample/sample-00000-00001.tif")
    assert paths(frames) == ["/data/raw/sample/sample-00000-00001.tif"]


@pytest.mark.parametrize(
    ("keys", "data"),
    [
        pytest.param({"full_file_name": NAME}, {"pe_full_file_name": ""}, id="empty"),
        pytest.param({"full_file_name": NAME}, {}, id="missing-in-the-event"),
        pytest.param({"full_file_name": NUMBER}, {"pe_full_file_name": 3.0}, id="no-string"),
        pytest.param({"comment": NAME}, {"pe_comment": "/data/other.tif"}, id="another-string"),
    ],
)
def test_template_is_used_without_a_reported_name(
    keys: dict[str, Document], data: dict[str, Any], run: ComposedRun
) -> None:
    run.stream(pe={"image": IMAGE, **keys})
    assert paths(run.event(pe_image=run.resource()(0), **data)) == ["/data/raw/sample/sample-00000.tif"]


def test_name_of_the_last_frame_is_not_used_for_all(run: ComposedRun) -> None:
    run.stream(pe={"image": IMAGE, "full_file_name": NAME})
    datum = run.resource(frame_per_point=3)(1)
    frames = run.event(pe_image=datum, pe_full_file_name="/data/raw/sample/sample-00005.tif")
    assert paths(frames) == [f"/data/raw/sample/sample-{number:05d}.tif" for number in (3, 4, 5)]


def test_two_detectors_each_have_their_own_name(run: ComposedRun) -> None:
    run.stream(pe1={"image": IMAGE, "full_file_name": NAME}, pe2={"image": IMAGE}, motor={"position": NUMBER})
    first, second = run.resource(filename="first"), run.resource(filename="second")
    frames = run.event(
        pe1_image=first(0), pe1_full_file_name="/data/read-back.tif", pe2_image=second(0), motor_position=1.5
    )
    assert {frame.data_key: frame.path for frame in frames} == {
        "pe1_image": "/data/read-back.tif",
        "pe2_image": "/data/raw/sample/second-00000.tif",
    }


def test_frames_have_their_stream_and_seq_num(run: ComposedRun) -> None:
    run.stream("dark", pe={"image": IMAGE})
    run.stream("primary", pe={"image": IMAGE})
    datum = run.resource()
    order = ["dark", "primary", "dark", "primary", "primary"]
    frames = [frame for point, stream in enumerate(order) for frame in run.event(stream, pe_image=datum(point))]
    assert [(frame.stream, frame.seq_num) for frame in frames] == [
        ("dark", 1), ("primary", 1), ("dark", 2), ("primary", 2), ("primary", 3),
    ]  # fmt: skip


def test_interleaved_runs_are_kept_apart(finder: FrameFinder) -> None:
    runs = [ComposedRun(finder.feed), ComposedRun(finder.feed)]
    data = []
    for number, run in enumerate(runs):
        run.stream(pe={"image": IMAGE})
        data.append(run.resource(filename=f"run{number}"))
    found = [run.event(pe_image=data[number](point)) for point in range(2) for number, run in enumerate(runs)]
    runs[0].stop()
    found.append(runs[1].event(pe_image=data[1](2)))
    runs[1].stop()
    assert [(Path(frame.path).name, frame.run_uid) for (frame,) in found] == [
        ("run0-00000.tif", runs[0].uid),
        ("run1-00000.tif", runs[1].uid),
        ("run0-00001.tif", runs[0].uid),
        ("run1-00001.tif", runs[1].uid),
        ("run1-00002.tif", runs[1].uid),
    ]


@pytest.mark.parametrize("spec", ["AD_HDF5", "AD_SPE", "NPY_SEQ"])
def test_images_of_another_spec_are_ignored(spec: str, run: ComposedRun) -> None:
    run.stream(eiger={"image": IMAGE, "full_file_name": NAME}, pe={"image": IMAGE})
    other, tiff = run.resource(spec=spec, template="%s%s_%6.6d.h5"), run.resource()
    frames = run.event(eiger_image=other(0), eiger_full_file_name="/data/raw/eiger.h5", pe_image=tiff(0))
    assert [frame.data_key for frame in frames] == ["pe_image"]


@pytest.mark.parametrize(
    "described",
    [
        pytest.param({**NUMBER, "external": "FILESTORE:"}, id="external-number"),
        pytest.param({key: value for key, value in IMAGE.items() if key != "external"}, id="array-in-the-event"),
    ],
)
def test_only_external_arrays_are_images(described: Document, run: ComposedRun) -> None:
    run.stream(pe={"image": described})
    assert run.event(pe_image=run.resource()(0)) == []


def test_unknown_datum_does_no_harm(run: ComposedRun) -> None:
    run.stream(pe1={"image": IMAGE}, pe2={"image": IMAGE})
    datum = run.resource()
    assert [frame.data_key for frame in run.event(pe1_image="never/1", pe2_image=datum(0))] == ["pe2_image"]
    assert len(run.event(pe1_image=datum(1), pe2_image="never/2")) == 1


def test_frame_in_two_events_is_found_once(run: ComposedRun) -> None:
    run.stream(pe={"image": IMAGE})
    datum = run.resource()(0)
    assert [len(run.event(pe_image=datum)) for _ in range(2)] == [1, 0]


@pytest.mark.parametrize("kind", ["start", "descriptor", "resource", "datum"])
def test_later_changes_to_documents_have_no_effect(kind: str) -> None:
    finder = FrameFinder()

    def feed_and_spoil(name: str, document: Document) -> list[Frame]:
        frames = finder.feed(name, document)
        if name == kind:
            for value in document.values():
                if isinstance(value, dict):
                    value.clear()
            document.update(dict.fromkeys(set(document) - {"uid", "resource", "datum_id"}, "spoilt"))
        return frames

    source = ComposedRun(lambda _name, _document: None)
    source.stream(pe={"image": IMAGE, "full_file_name": NAME})
    source.event(pe_image=source.resource(filename="other")(0), pe_full_file_name="/data/read-back.tif")
    source.event(pe_image=source.resource()(1), pe_full_file_name="")
    found = [frame for frames in replay(source.recorder.documents, feed_and_spoil) for frame in frames]
    assert [(frame.path, frame.run_uid) for frame in found] == [
        ("/data/read-back.tif", source.uid),
        ("/data/raw/sample/sample-00001.tif", source.uid),
    ]


def test_run_is_forgotten_when_it_stops(finder: FrameFinder) -> None:
    kept, ended = ComposedRun(finder.feed), ComposedRun(finder.feed)
    for run in (kept, ended):
        run.stream(pe={"image": IMAGE})
        datum = run.resource()
        run.event(pe_image=datum(0))
        datum(1)
    waiting = kept.resource()(5)
    ended.stop()
    assert len(kept.event(pe_image=waiting)) == 1
    with pytest.raises(UnknownDescriptorError, match="Subscribe before the run starts"):
        ended.event(pe_image="whatever")
    state = weakref.ref(finder.router._runs[kept.uid])
    kept.stop()
    assert finder.knows_nothing()
    gc.collect()
    assert state() is None
