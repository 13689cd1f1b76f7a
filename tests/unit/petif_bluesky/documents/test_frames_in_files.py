"""Frames in files that are not TIFF: where they are, by area-detector-handlers and bluesky's consolidator."""

import copy
import itertools
import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from fabio.cbfimage import CbfImage
from hypothesis import given, settings
from hypothesis import strategies as st

from petif_bluesky.documents.errors import MalformedDocumentError
from petif_bluesky.documents.frame import Frame
from petif_bluesky.documents.selection import FrameSelection
from petif_bluesky.frames import FrameRouter
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.path_map import PathMap
from tango_server.messages import FrameRequest
from tests.unit.documents import IMAGE, IN_STREAM, NAME, NUMBER, ComposedRun, Document, FrameFinder

HDF5 = "application/x-hdf5"
SHAPE = (2, 3)


def announced(run: ComposedRun, spec: str, where: Path | str, **kwargs: Any) -> Any:
    """Compose a resource; return a function that composes a datum of it with any kwargs, and returns its id."""
    bundle = run._run.compose_resource(
        spec=spec, root="/", resource_path=str(where).lstrip("/"), resource_kwargs=kwargs, path_semantics="posix"
    )
    run._emit("resource", bundle.resource_doc)

    def datum(**datum_kwargs: int) -> str:
        document = bundle.compose_datum(datum_kwargs=datum_kwargs)
        run._emit("datum", document)
        return str(document["datum_id"])

    return datum


def detector(shape: Sequence[int] = (1, *SHAPE), **keys: Document) -> ComposedRun:
    run = ComposedRun(FrameFinder().feed)
    run.stream(det={"image": {**IMAGE, "shape": list(shape)}, **keys})
    return run


def places(frames: list[Frame]) -> list[tuple[str, int | None]]:
    return [(frame.path, frame.frame) for frame in frames]


def values(frames: list[Frame]) -> list[int]:
    """The value of the pixels of each frame, read with h5py from the place that its request names."""
    found = []
    for frame in frames:
        request = FrameRequest.model_validate(frame.request())
        place = FrameLocation.of(request.source, request.frame)
        with h5py.File(place.file) as file:
            stack = np.concatenate(_images_in(file, place.data_set))
        assert place.index is not None
        (value,) = np.unique(stack[place.index])
        found.append(int(value))
    return found


def _images_in(file: h5py.File, data_set: str) -> list[Any]:
    if data_set:
        return [file[data_set][()].reshape(-1, *SHAPE)]
    return [file["entry/data"][name][()] for name in sorted(file["entry/data"])]


def numbered(count: int, first: int = 0) -> Any:
    """A stack of frames whose pixels are their number."""
    return np.arange(first, first + count).repeat(SHAPE[0] * SHAPE[1]).reshape(count, *SHAPE)


def write(path: Path, data_set: str, data: Any) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        file[data_set] = data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of every kind, in which each frame has its number as pixels."""
    folder = tmp_path_factory.mktemp("stacks")
    write(folder / "stack.h5", "entry/data/data", numbered(60))
    write(folder / "timepix.h5", "entry/instrument/detector/data", numbered(60))
    for number in range(24):
        write(folder / f"one_{number:06d}.h5", "entry/data/data", numbered(1, number)[0])
        CbfImage(data=numbered(1, number)[0].astype(np.int32)).write(folder / f"a_{number:05d}.cbf")
    write(folder / "eiger_5_master.h5", "entry/data/data_000001", numbered(4))
    with h5py.File(folder / "eiger_5_master.h5", "r+") as file:
        file["entry/data/data_000002"] = numbered(4, 4)
        for name in (
            "y_pixel_size", "x_pixel_size", "detector_distance", "frame_time", "beam_center_x", "beam_center_y",
            "count_time", "detectorSpecific/pixel_mask",
        ):  # fmt: skip
            file[f"entry/instrument/detector/{name}"] = 1.0
        file["entry/instrument/beam/incident_wavelength"] = 1.0
    return folder


@pytest.fixture
def handlers() -> Iterator[Any]:
    """The handlers by spec, closed at the end."""
    from area_detector_handlers import handlers as module

    opened: list[Any] = []

    def handler(kind: str, *arguments: Any, **kwargs: Any) -> Any:
        opened.append(getattr(module, kind)(*arguments, **kwargs))
        return opened[-1]

    yield handler
    for each in opened:
        each.close()


@pytest.mark.parametrize(
    ("spec", "kind", "name", "data_set"),
    [
        ("AD_HDF5", "AreaDetectorHDF5Handler", "stack.h5", "/entry/data/data"),
        ("AD_HDF5_SWMR", "AreaDetectorHDF5SWMRHandler", "stack.h5", "/entry/data/data"),
        ("TPX_HDF5", "TimepixHDF5Handler", "timepix.h5", "/entry/instrument/detector/data"),
    ],
)
@pytest.mark.parametrize("count", [1, 3])
def test_stacks_are_read_as_the_handler_does(
    spec: str, kind: str, name: str, data_set: str, count: int, folder: Path, handlers: Any
) -> None:
    run = detector((count, *SHAPE))
    datum = announced(run, spec, folder / name, frame_per_point=count)
    for seq_num, point in enumerate([0, 1, 5, 3, 19], start=1):  # with a gap, and out of order
        read = handlers(kind, str(folder / name), frame_per_point=count)  # that of SWMR fails when it is called again
        frames = run.event(det_image=datum(point_number=point))
        assert values(frames) == [int(image[0, 0]) for image in np.asarray(read(point))]
        assert {frame.path for frame in frames} == {f"{folder / name}::{data_set}"}
        assert {frame.seq_num for frame in frames} == {seq_num}
        assert [frame.metadata["number"] for frame in frames] == list(range(count))
        assert {tuple(frame.metadata["shape"]) for frame in frames} == {SHAPE}
    assert run.event(det_image=datum(point_number=0)) == []
    run.recorder.check()


@pytest.mark.parametrize("count", [1, 3])
def test_single_hdf5_files_are_read_as_the_handler_does(count: int, folder: Path, handlers: Any) -> None:
    settings: Document = {"template": "%s%s_%6.6d.h5", "filename": "one", "frame_per_point": count}
    run = detector((count, *SHAPE))
    datum = announced(run, "AD_HDF5_SINGLE", folder, **settings)
    read = handlers("AreaDetectorHDF5SingleHandler", str(folder), **settings)
    for point in (0, 4, 2):
        frames = run.event(det_image=datum(point_number=point))
        assert [path for path, _ in places(frames)] == [
            f"{path}::/entry/data/data" for path in read.get_file_list([{"point_number": point}])
        ]
        assert values(frames) == [int(image[0, 0]) for image in read(point)]
        assert {frame.frame for frame in frames} == {0}


def test_cbf_files_are_those_of_the_handler(folder: Path) -> None:
    from area_detector_handlers.handlers import PilatusCBFHandler

    settings: Document = {"template": "%s%s_%5.5d.cbf", "filename": "a"}
    run = detector()
    datum = announced(run, "AD_CBF", folder, **settings)
    read = PilatusCBFHandler(str(folder), **settings)
    for point in (0, 7):
        frames = run.event(det_image=datum(point_number=point))
        assert places(frames) == [(path, None) for path in read.get_file_list([{"point_number": point}])]
        assert read(point)[0, 0] == point + 1  # they are counted from 1


@pytest.mark.parametrize(("first", "expected"), [({}, [7, 8, 9]), ({"initial_number": 0}, [6, 7, 8])])
def test_cbf_files_of_a_point_do_not_overlap(first: Document, expected: list[int]) -> None:
    """The handler would read those of the next point as well."""
    run = detector((3, *SHAPE))
    datum = announced(run, "AD_CBF", "/raw", template="%s%s_%d.cbf", filename="a", frame_per_point=3, **first)
    frames = run.event(det_image=datum(point_number=2))
    assert places(frames) == [(f"/raw/a_{number}.cbf", None) for number in expected]


def test_eiger_masters_are_read_as_the_handler_does(folder: Path) -> None:
    from area_detector_handlers.eiger import EigerHandler

    run = detector((8, *SHAPE))
    datum = announced(run, "AD_EIGER2", folder / "eiger", images_per_file=4)
    frames = run.event(det_image=datum(seq_id=5))
    read = EigerHandler(str(folder / "eiger"), images_per_file=1)  # with 4, it would read the first file twice
    expected = [int(image[0, 0]) for image in np.asarray(read(5))]
    read.close()
    assert places(frames) == [(str(folder / "eiger_5_master.h5"), index) for index in range(8)]
    assert values(frames) == expected == list(range(8))


@pytest.mark.parametrize("key", ["frame_num", "image_slice"])
def test_eiger_slices_are_single_frames_of_a_master(key: str, folder: Path) -> None:
    run = detector()
    datum = announced(run, "AD_EIGER_SLICE", folder / "eiger", images_per_file=4)
    frames = [run.event(det_image=datum(seq_id=5, **{key: image})) for image in (0, 1, 6)]
    assert [values(each) for each in frames] == [[0], [1], [6]]
    assert [each[0].seq_num for each in frames] == [1, 2, 3]


def test_eiger_of_a_macromolecular_beamline_has_its_sequence_in_the_resource() -> None:
    run = detector((2, *SHAPE))
    datum = announced(run, "AD_EIGER_MX", "/raw/lyso", seq_id=12)
    assert places(run.event(det_image=datum())) == [("/raw/lyso_12_master.h5", index) for index in range(2)]


@pytest.mark.parametrize(
    ("spec", "kwargs", "data_set"),
    [
        ("AD_HDF5_SWMR_STREAM", {"dataset": "entry/detector/data"}, "::/entry/detector/data"),
        ("AD_HDF5_SWMR_SLICE", {"path": "/entry/data/data"}, "::/entry/data/data"),
        ("AD_HDF5", {"dataset": ["entry", "other"]}, "::/entry/other"),
        ("AD_HDF5_SWMR_SLICE", {}, ""),
    ],
)
def test_data_set_is_the_one_that_the_document_names(spec: str, kwargs: Document, data_set: str) -> None:
    run = detector((2, *SHAPE))
    datum = announced(run, spec, "/raw/a.h5", frame_per_point=2, **kwargs)
    frames = run.event(det_image=datum(point_number=1))
    assert places(frames) == [(f"/raw/a.h5{data_set}", 2), (f"/raw/a.h5{data_set}", 3)]
    request = frames[0].request()
    assert (request["source"], request["frame"]) == (f"/raw/a.h5{data_set}", 2)
    assert request["key"] == f"{run.uid}/det_image//raw/a.h5{data_set}#2"


def test_a_file_of_its_own_has_no_index_in_its_request() -> None:
    run = detector()
    (frame,) = run.event(det_image=run.resource()(0))
    assert "frame" not in frame.request()  # servers of before refuse fields that they do not know


def test_a_datum_without_a_point_is_an_error() -> None:
    run = detector()
    with pytest.raises(MalformedDocumentError, match=r"raw/a.h5 has no point_number"):
        run.event(det_image=announced(run, "AD_HDF5", "/raw/a.h5")(column=1))
    with pytest.raises(MalformedDocumentError, match=r"raw/a has no seq_id"):
        run.event(det_image=announced(run, "AD_EIGER2", "/raw/a", images_per_file=1)())


@pytest.mark.parametrize(
    ("shape", "noted"),
    [([5], False), ([], True), ([1, 3, 4, 4], True), ([1, 0, 4], True), ([1, None, 4], True)],
)
@pytest.mark.parametrize("in_stream", [True, False])
def test_only_two_pixel_dimensions_are_frames(shape: list[Any], noted: bool, in_stream: bool) -> None:
    finder = FrameFinder()
    run = ComposedRun(finder.feed)
    described = {**(IN_STREAM if in_stream else IMAGE), "shape": shape}
    run.stream(det={"image": described})
    if in_stream:
        datum = run.stream_resource("det_image", "file://localhost/a.h5", "", mimetype=HDF5, dataset="/data")
        assert datum(0, 2) == []
    else:
        assert run.event(det_image=announced(run, "AD_HDF5", "/a.h5", frame_per_point=1)(point_number=0)) == []
    assert [("shape" in note and "det_image" in note) for note in finder.notes] == ([True] if noted else [])


def test_time_stamps_are_no_frames() -> None:
    finder = FrameFinder()
    run = ComposedRun(finder.feed)
    run.stream(det={"image": IMAGE, "stamps": {**IMAGE, "shape": [1]}})
    run.event(
        det_image=announced(run, "AD_HDF5", "/raw/a.h5")(point_number=0),
        det_stamps=announced(run, "AD_HDF5_TS", "/raw/a.h5")(point_number=0),
    )
    assert finder.notes == []
    assert places(finder._found) == [("/raw/a.h5::/entry/data/data", 0)]


def streamed(
    parameters: Document, shape: Sequence[int] = (1, 48, 64), uri: str = "file://localhost/raw/a.h5", mime: str = HDF5
) -> tuple[FrameFinder, ComposedRun, Any]:
    finder = FrameFinder()
    run = ComposedRun(finder.feed)
    run.stream("fly", det={"image": {**IN_STREAM, "shape": list(shape)}})
    return (
        finder,
        run,
        run.stream_resource("det_image", uri, parameters.pop("template", ""), mimetype=mime, **parameters),
    )


@pytest.mark.parametrize(
    ("parameters", "shape", "indices"),
    [
        ({"dataset": "/entry/data/data"}, (1, 48, 64), [2, 3]),
        ({"dataset": "entry/data/data"}, (3, 48, 64), range(6, 12)),
        ({"dataset": "/entry/data/data", "chunk_shape": [10, 48, 64]}, (2, 48, 64), range(4, 8)),
        ({"dataset": "/entry/data/data", "multiplier": 2}, (1, 48, 64), range(4, 8)),
        ({"path": "/entry/data/data", "frame_per_point": 2}, (2, 48, 64), range(4, 8)),
        ({"dataset": "/entry/data/data"}, (48, 64), [2, 3]),
    ],
)
def test_frames_of_a_stream_are_counted_in_the_file(
    parameters: Document, shape: tuple[int, ...], indices: Sequence[int]
) -> None:
    _, run, datum = streamed(parameters, shape)
    frames = datum(2, 4, stream="fly", seq_num=7)
    assert places(frames) == [("/raw/a.h5::/entry/data/data", index) for index in indices]
    each = len(indices) // 2
    assert [frame.seq_num for frame in frames] == [7] * each + [8] * each
    run.recorder.check()


def test_absurd_number_of_frames_is_an_error_at_once() -> None:
    _, _, datum = streamed({"dataset": "/d"}, (100_000, 48, 64))
    with pytest.raises(MalformedDocumentError, match="10000000000 frames in one document"):
        datum(0, 100_000, stream="fly")


def test_rows_of_spectra_and_slices_are_no_frames() -> None:
    for parameters in ({"chunk_shape": [16, 64]}, {"slice": "(:,0,:,:)"}):
        finder, _, datum = streamed({"dataset": "/d", **parameters}, (48, 64))
        assert datum(0, 1, stream="fly") == []
        (note,) = finder.notes
        assert "det_image" in note


@pytest.mark.parametrize(
    ("mime", "template", "expected"),
    [
        ("multipart/related;type=application/x-cbf", "a_{:03d}.cbf", [("/raw/a_001.cbf", None)]),
        ("multipart/related; type=image/x-edf", "a_{:d}.edf", [("/raw/a_1.edf", None)]),
        ("multipart/related;type=image/edf", "%s%s_%2.2d.edf", [("/raw/_01.edf", None)]),
        ("multipart/related;type=application/x-hdf5", "a", None),
        (HDF5, "a_{:d}.h5", [("/raw/a_1.h5", 0)]),
        ("application/x-edf", "", [("/raw/", 1)]),
        ("image/cbf", "", [("/raw/", None)]),
    ],
)
def test_other_formats_in_streams(mime: str, template: str, expected: Any) -> None:
    finder, _, datum = streamed({"template": template}, uri="file://localhost/raw/", mime=mime)
    found = places(datum(1, 2, stream="fly"))
    assert found == (expected or [])
    assert bool(finder.notes) == (expected is None)


@pytest.mark.parametrize(("chunk", "files", "each"), [(1, 4, 1), (2, 2, 2), (4, 1, 4)])
def test_numbered_hdf5_files_have_the_frames_of_a_chunk(chunk: int, files: int, each: int) -> None:
    _, _, datum = streamed(
        {"template": "a_{:d}.h5", "chunk_shape": [chunk, 48, 64], "dataset": "/d"}, (4, 48, 64), "file://localhost/raw/"
    )
    expected = [(f"/raw/a_{files + number}.h5::/d", index) for number in range(files) for index in range(each)]
    assert places(datum(1, 2, stream="fly")) == expected


@given(
    each=st.integers(1, 4),
    chunk=st.integers(1, 4),
    spans=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 2)), min_size=1, max_size=6),
    others=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_every_frame_is_requested_once_as_consolidated(
    each: int, chunk: int, spans: list[tuple[int, int]], others: bool
) -> None:
    """Stream datums of several events, with gaps in seq_num; the reference is bluesky's consolidator."""
    from bluesky.consolidators import HDF5Consolidator

    finder = FrameFinder()
    run = ComposedRun(finder.feed)
    run.stream("fly", det={"image": {**IN_STREAM, "shape": [each, 48, 64]}, "sum": {**NUMBER, "external": "STREAM:"}})
    settings_of: Document = {"dataset": "/entry/data", "chunk_shape": [chunk, 48, 64]}
    datum = run.stream_resource("det_image", "file://localhost/raw/a.h5", "", mimetype=HDF5, **settings_of)
    sums = run.stream_resource("det_sum", "file://localhost/raw/a.h5", "", mimetype=HDF5, dataset="/sum")
    frames: list[Frame] = []
    first, seq_num = 0, 1
    for length, gap in spans:
        frames += datum(first, first + length, stream="fly", seq_num=seq_num)
        frames += sums(first, first + length, stream="fly", seq_num=seq_num) if others else []
        first, seq_num = first + length, seq_num + length + gap
    (descriptor,) = run.recorder.of("descriptor")
    resource = next(each for each in run.recorder.of("stream_resource") if each["data_key"] == "det_image")
    reference = HDF5Consolidator(copy.deepcopy(resource), descriptor)
    for document in run.recorder.of("stream_datum"):
        if document["stream_resource"] == resource["uid"]:
            reference.consume_stream_datum(document)
    rows = np.arange(reference.shape[0]).reshape(-1, each)
    expected = [
        (number, int(row)) for number, index in reference._seqnums_to_indices_map.items() for row in rows[index]
    ]
    assert [(frame.seq_num, frame.frame) for frame in frames] == expected
    assert {frame.path for frame in frames} == {"/raw/a.h5::/entry/data"}
    keys = [frame.request()["key"] for frame in frames]
    assert len(set(keys)) == len(keys) == sum(length for length, _ in spans) * each


@given(points=st.lists(st.integers(0, 19), min_size=1, max_size=8), count=st.integers(1, 3), shuffle=st.randoms())
@settings(max_examples=40, deadline=None)
def test_documents_in_any_order_give_the_frames_of_the_handler(
    points: list[int], count: int, shuffle: Any, folder: Path
) -> None:
    """Datums may come after their events, and a point may be read by several events: it is one frame."""
    from area_detector_handlers.handlers import AreaDetectorHDF5Handler

    source = ComposedRun(lambda _name, _document: None)
    source.stream(det={"image": {**IMAGE, "shape": [count, *SHAPE]}})
    datum = announced(source, "AD_HDF5", folder / "stack.h5", frame_per_point=count)
    for point in points:
        source.event(det_image=datum(point_number=point))
    source.stop()
    head, middle, tail = source.recorder.documents[:2], source.recorder.documents[2:-1], source.recorder.documents[-1:]
    shuffle.shuffle(middle)
    frames: list[Frame] = []
    router = FrameRouter(frames.extend)
    for name, document in [*head, *middle, *tail]:
        router(name, document)
    handler = AreaDetectorHDF5Handler(str(folder / "stack.h5"), frame_per_point=count)
    expected = [int(image[0, 0]) for point in dict.fromkeys(points) for image in np.asarray(handler(point))]
    handler.close()
    assert sorted(values(frames)) == sorted(expected)
    of_event = {event["seq_num"]: points[event["seq_num"] - 1] for event in source.recorder.of("event")}
    assert all(frame.frame is not None and frame.frame // count == of_event[frame.seq_num] for frame in frames)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///C:/data/run.h5", "/gpfs/raw/run.h5::/Entry/data"),
        ("file://filer/share/run.h5", "/share/run.h5::/Entry/data"),
    ],
)
def test_windows_names_with_data_sets_are_mapped(uri: str, path: str) -> None:
    paths = PathMap.of({"C:\\data": "/gpfs/raw", r"\\filer\share": "/share"})
    finder = FrameFinder(FrameSelection(paths=paths))
    run = ComposedRun(finder.feed)
    run.stream("fly", det={"image": IN_STREAM})
    datum = run.stream_resource("det_image", uri, "", mimetype=HDF5, dataset="/Entry/data")
    assert places(datum(0, 1, stream="fly")) == [(path, 0)]


def test_windows_names_keep_their_data_set_for_the_server() -> None:
    _, _, datum = streamed({"dataset": "/Entry/data"}, uri="file:///C:/data/run.h5")
    (frame,) = datum(0, 1, stream="fly")
    assert frame.path == "C:/data/run.h5::/Entry/data"
    assert PathMap.of({"C:\\data": "/d"}).translate(frame.path, windows_host=False) == "/d/run.h5::/Entry/data"


def test_two_data_sets_of_one_file_are_two_frames() -> None:
    run = ComposedRun(FrameFinder().feed)
    run.stream("fly", det={"image": IN_STREAM, "other_image": IN_STREAM})
    uri = "file://localhost/raw/a.h5"
    datums = [
        run.stream_resource(f"det_{key}", uri, "", mimetype=HDF5, dataset=f"/{key}") for key in ("image", "other_image")
    ]
    found = list(itertools.chain.from_iterable(places(datum(0, 1, stream="fly")) for datum in datums))
    assert found == [("/raw/a.h5::/image", 0), ("/raw/a.h5::/other_image", 0)]


def test_reported_names_of_other_formats_are_frames() -> None:
    run = ComposedRun(FrameFinder().feed)
    run.stream(det={"full_file_name": NAME}, pe={"full_file_name": NAME, "cbf_full_file_name": NAME})
    frames = run.event(
        det_full_file_name="/raw/a.cbf", pe_full_file_name="/raw/a.tif", pe_cbf_full_file_name="/raw/pe.cbf"
    )
    assert places(frames) == [("/raw/a.cbf", None), ("/raw/a.tif", None)]


def test_a_reported_name_replaces_only_one_of_its_format() -> None:
    for template, reported, expected in (
        ("%s%s_%d.cbf", "/raw/a_1-00001.cbf", "/raw/a_1-00001.cbf"),
        ("%s%s_%d.cbf", "/raw/a_1.tif", "/raw/a_1.cbf"),
        ("%s%s_%d.tif", "/raw/a_1.cbf", "/raw/a_1.tif"),
    ):
        run = detector(full_file_name=NAME)
        datum = announced(run, "AD_FILES", "/raw", template=template, filename="a")
        frames = run.event(det_image=datum(point_number=1), det_full_file_name=reported)
        assert places(frames) == [(expected, None)]


def test_a_template_for_a_stack_is_reported() -> None:
    finder = FrameFinder()
    run = ComposedRun(finder.feed)
    run.stream(det={"image": IMAGE})
    assert run.event(det_image=run.resource(spec="AD_HDF5", template="%s%s_%d.h5")(0)) == []
    (note,) = finder.notes
    assert "AD_HDF5 is not a format of frames" in note


def test_an_edf_file_of_many_frames_counts_them() -> None:
    run = detector((2, *SHAPE))
    datum = announced(run, "EDF", "/raw/a.edf", frame_per_point=2)
    assert places(run.event(det_image=datum(point_number=3))) == [("/raw/a.edf", 6), ("/raw/a.edf", 7)]
    other = announced(run, "EDF", posixpath.join("/raw", "b.edf"))
    assert places(run.event(det_image=other(point_number=3))) == [("/raw/b.edf", None)]
