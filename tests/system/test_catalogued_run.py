"""What a real Tiled catalogue (in a thread of this process) tells of the frames of runs and of their conversion."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
import tifffile
from bluesky import RunEngine
from event_model import ComposeStreamResource, StreamRange

from petif_bluesky import ConversionCallback, PETifConverter, conversion_wrapper
from petif_bluesky.documents.errors import FramesNotFoundError
from petif_bluesky.documents.frame import Frame
from petif_bluesky.documents.selection import FrameSelection
from petif_bluesky.frames import FrameRouter
from petif_bluesky.sim import SimulatedPerkinElmer
from petif_bluesky.testing.fake_server import FakeServer
from petif_bluesky.testing.reports import failed
from petif_bluesky.tiled.literal_names import LiteralNames
from petif_bluesky.tiled.patches import with_trailing_slash, write_statistics
from petif_bluesky.tiled.raw_frames import frames_of_run
from tango_server.messages import FrameReport, FrameRequest, RunStatistics
from tango_server.recipe import Recipe
from tests.tiled_server import open_client, open_tiled, tiled_writer
from tests.unit.documents import IMAGE, IN_STREAM, NAME, NUMBER, TIFFS, ComposedRun
from tests.unit.named_frames import SHAPE, taken, written

HDF5 = "application/x-hdf5"
JPEGS = "multipart/related;type=image/jpeg"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    storage = ["/data", tmp_path_factory.getbasetemp()]
    with open_tiled(tmp_path_factory.mktemp("catalogue"), readable_storage=storage) as tiled:
        client = open_client(tiled.uri)
        yield client
        client.context.close()


@pytest.fixture
def writer(client: Any) -> Any:
    return tiled_writer(client, patches={"resource": with_trailing_slash})


def found(client: Any, run: ComposedRun, selection: FrameSelection | None = None) -> list[tuple[Any, ...]]:
    run.stop()
    raw = frames_of_run(client[run.uid], selection)
    assert {frame.run_uid for frame in raw} == {run.uid}
    return [(Path(frame.path).name, frame.stream, frame.seq_num) for frame in raw]


def test_several_frames_for_each_event(client: Any, writer: Any) -> None:
    run = ComposedRun(writer)
    run.stream(pe={"image": {**IN_STREAM, "shape": [2, 48, 64]}, "temperature": NUMBER})
    datum = run.stream_resource("pe_image", "file://localhost/data/raw/", "a_{:04d}.tif")
    for number in range(2):
        datum(number, number + 1, seq_num=number + 1)
        run.event(pe_temperature=20.0 + number)
    run.stop()
    raw = frames_of_run(client[run.uid])
    assert [(frame.path, frame.seq_num, frame.metadata["pe_temperature"]) for frame in raw] == [
        ("/data/raw/a_0000.tif", 1, 20.0),
        ("/data/raw/a_0001.tif", 1, 20.0),
        ("/data/raw/a_0002.tif", 2, 21.0),
        ("/data/raw/a_0003.tif", 2, 21.0),
    ]


def test_fly_scan_without_events_from_two_detectors(client: Any, writer: Any) -> None:
    run = ComposedRun(writer)
    run.stream("fly", pe={"image": IN_STREAM}, cam={"image": IN_STREAM})
    for name in ("pe", "cam"):
        run.stream_resource(f"{name}_image", "file://localhost/data/raw/", f"{name}_{{:02d}}.tif")(0, 3, stream="fly")
    frames = found(client, run, FrameSelection(without_detectors=("cam",)))
    assert frames == [(f"pe_{number:02d}.tif", "fly", number + 1) for number in range(3)]


def test_darks_of_a_catalogued_run(client: Any, writer: Any) -> None:
    recipe = Recipe.preset("xdi", corrections={"dark": "run"})
    dark_run = ComposedRun(LiteralNames(writer))
    dark_run.stream(pe={"image": IMAGE})
    dark_run.event(pe_image=dark_run.resource(filename="named")(0))
    dark_run.stop()
    run = ComposedRun(LiteralNames(writer), sc_dk_field_uid=dark_run.uid)
    for stream in ("primary", "dark"):
        run.stream(stream, pe={"image": IMAGE})
    datums = {stream: run.resource(filename=stream) for stream in ("primary", "dark")}
    for number, stream in enumerate(("primary", "dark", "primary", "dark", "primary")):
        run.event(stream, pe_image=datums[stream](number))
    run.stop()
    for catalogue, first in ((None, "dark-00001.tif"), (client, "named-00000.tif")):
        raw = frames_of_run(client[run.uid], recipe=recipe, catalogue=catalogue)
        darks = [frame.dark.paths if frame.dark else () for frame in raw]
        assert [Path(frame.path).name for frame in raw] == [f"primary-0000{number}.tif" for number in (0, 2, 4)]
        assert [Path(path).name for (path,) in darks] == [first, "dark-00001.tif", "dark-00003.tif"]


@pytest.mark.parametrize("literal", [True, False], ids=["literal-names", "templates"])
def test_reported_names_override_the_template(client: Any, writer: Any, literal: bool) -> None:
    run = ComposedRun(LiteralNames(writer) if literal else writer, sample_name="CeO2")
    run.stream(pe={"image": IMAGE, "full_file_name": NAME})
    datum = run.resource()
    names = ["sample-00000.tif", "sample-00001-00001.tif", "sample-00002.tif"]
    for number, name in enumerate(names):
        run.event(pe_image=datum(number), pe_full_file_name=f"/data/raw/sample/{name}")
    assert found(client, run) == [(name, "primary", number) for number, name in enumerate(names, start=1)]


def test_other_formats_are_ignored(client: Any, writer: Any) -> None:
    run = ComposedRun(writer)
    run.stream(cam={"image": IN_STREAM})
    run.stream_resource("cam_image", "file://localhost/data/raw/", "a_{:d}.jpeg", mimetype=JPEGS)(0, 2)
    run.stop()
    with pytest.raises(FramesNotFoundError, match=f"run {run.uid}: no frames.*image/jpeg"):
        frames_of_run(client[run.uid])


def in_files(client: Any, run: ComposedRun) -> list[tuple[str, int | None, int]]:
    run.stop()
    return [(frame.path, frame.frame, frame.seq_num) for frame in frames_of_run(client[run.uid])]


@pytest.mark.parametrize("each", [1, 3])
def test_frames_of_an_hdf5_file_keep_their_index(client: Any, writer: Any, each: int) -> None:
    run = ComposedRun(writer)
    run.stream(det={"image": {**IN_STREAM, "shape": [each, 48, 64]}, "temperature": NUMBER})
    datum = run.stream_resource("det_image", "file://localhost/data/raw/a.h5", "", mimetype=HDF5, dataset="/entry/data")
    for number in range(3):
        datum(number, number + 1, seq_num=number + 1)
        run.event(det_temperature=20.0 + number)
    expected = [("/data/raw/a.h5::/entry/data", index, index // each + 1) for index in range(3 * each)]
    assert in_files(client, run) == expected
    raw = frames_of_run(client[run.uid])
    assert [frame.metadata["det_temperature"] for frame in raw] == [20.0 + index // each for index in range(3 * each)]


def test_fly_scan_into_an_hdf5_file(client: Any, writer: Any) -> None:
    run = ComposedRun(writer)
    run.stream("fly", det={"image": {**IN_STREAM, "shape": [2, 48, 64]}})
    datum = run.stream_resource("det_image", "file://localhost/data/raw/a.h5", "", mimetype=HDF5, dataset="/entry/data")
    datum(0, 1, stream="fly")
    datum(1, 4, stream="fly", seq_num=2)
    assert in_files(client, run) == [("/data/raw/a.h5::/entry/data", index, index // 2 + 1) for index in range(8)]


def in_streams(writer: Any, streams: list[str], *, motor: bool = True) -> ComposedRun:
    """A run whose detector has one file for all streams; a catalogue has all frames in the first of them."""
    run = ComposedRun(writer)
    for name in dict.fromkeys(streams):
        run.stream(name, det={"image": IN_STREAM}, **({"motor": {"position": NUMBER}} if motor else {}))
    datum = run.stream_resource("det_image", "file://localhost/data/raw/a.h5", "", mimetype=HDF5, dataset="/entry/data")
    for index, name in enumerate(streams):
        datum(index, index + 1, stream=name, seq_num=streams[: index + 1].count(name))
        if motor:
            run.event(name, motor_position=float(index))
    return run


@pytest.mark.parametrize("without", [(), ("alignment",), ("primary",)])
def test_streams_that_share_a_file_have_each_their_frames(client: Any, writer: Any, without: tuple[str, ...]) -> None:
    run = in_streams(writer, ["alignment", "primary", "alignment", "primary"])
    run.stop()
    frames = frames_of_run(client[run.uid], FrameSelection(without_streams=without))
    expected = [(0, "alignment", 1), (1, "primary", 1), (2, "alignment", 2), (3, "primary", 2)]
    assert [(frame.frame, frame.stream, frame.seq_num) for frame in frames] == [
        row for row in expected if row[1] not in without
    ]
    assert [frame.metadata["motor_position"] for frame in frames] == [frame.frame for frame in frames]


def test_frames_of_unknown_streams_are_refused(client: Any, writer: Any) -> None:
    run = in_streams(writer, ["dark", "fly", "fly"], motor=False)
    run.stop()
    with pytest.raises(FramesNotFoundError, match="3 frames for 0 events of the streams dark, fly"):
        frames_of_run(client[run.uid])


@pytest.mark.parametrize("literal", [True, False], ids=["literal-names", "templates"])
@pytest.mark.parametrize(
    ("spec", "count"),
    [
        ("AD_HDF5", 2),
        ("AD_HDF5_SINGLE", 1),
        pytest.param("AD_HDF5", 1, marks=pytest.mark.long),
        pytest.param("AD_HDF5_SINGLE", 2, marks=pytest.mark.long),
    ],
)
def test_hdf5_of_areadetector(client: Any, writer: Any, spec: str, count: int, literal: bool) -> None:
    live: list[Frame] = []
    router = FrameRouter(live.extend)
    catalogue = LiteralNames(writer) if literal else writer

    def both(name: str, document: Any) -> None:
        router(name, document)
        catalogue(name, document)

    run = ComposedRun(both)
    run.stream(det={"image": {**IMAGE, "shape": [count, 48, 64]}, "temperature": NUMBER})
    numbered = {"template": "%s%s_%6.6d.h5", "filename": "a"} if spec == "AD_HDF5_SINGLE" else {}
    bundle = run._run.compose_resource(
        spec=spec,
        root="/data",
        resource_path="raw/one" if numbered else "raw/a.h5",
        resource_kwargs={**numbered, "frame_per_point": count},
        path_semantics="posix",
    )
    run._emit("resource", bundle.resource_doc)
    for point in range(3):
        datum = bundle.compose_datum(datum_kwargs={"point_number": point})
        run._emit("datum", datum)
        run.event(det_image=datum["datum_id"], det_temperature=1.0)
    assert in_files(client, run) == [(frame.path, frame.frame, frame.seq_num) for frame in live]
    assert len(live) == 3 * count


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["sample-00000.tif", "sample-00001.tif"], id="as predicted", marks=pytest.mark.long),
        pytest.param(["sample-00000.tif", None, None, "sample-00003.tif"], id="gaps"),
        pytest.param([f"sample-0000{each}.tif" for each in (1, 2, 3)], id="from 1", marks=pytest.mark.long),
        pytest.param(["sample-00000-00001.tif", "sample-00001-00001.tif", "sample-00002.tif"], id="names taken"),
        pytest.param(["a 50%d {0}/x.tif", "b/x.tif", "c/x.tif"], id="other folders and names"),
        pytest.param(["sample-00000.tif"], id="one", marks=pytest.mark.long),
    ],
)
def test_catalogue_reads_the_files_that_were_written(client: Any, tmp_path: Path, names: list[str | None]) -> None:
    for index in range(5):
        written(tmp_path / f"sample-{index:05}.tif", 99)  # what the template would lead to
    run = ComposedRun(LiteralNames(tiled_writer(client)))
    taken(run, tmp_path, names)
    stream = client[run.uid]["primary"]
    files = [tmp_path / name for name in names if name is not None]
    expected = np.stack([tifffile.imread(path) for path in files])
    image = stream["pe_image"]
    np.testing.assert_array_equal(image.read()[:, 0], expected)
    np.testing.assert_array_equal(image[len(files) - 1][0], expected[-1])
    dataset = stream.read()
    np.testing.assert_array_equal(dataset["pe_image"].values[:, 0], expected)
    assert list(dataset["pe_full_file_name"].values) == [str(path) for path in files]


def detector(root: Path) -> SimulatedPerkinElmer:
    return SimulatedPerkinElmer(name="pe", directory=root / "raw", shape=(48, 64), exposure_time=0.0)


def test_catalogue_finds_the_frames_of_the_detector(
    client: Any, writer: Any, run_engine: RunEngine, root: Path
) -> None:
    run_engine.subscribe(writer)
    (uid,) = run_engine(bp.count([detector(root)], num=2))
    frames = [tifffile.imread(path) for path in sorted((root / "raw").glob("*.tif"))]
    np.testing.assert_array_equal(np.squeeze(client[uid]["primary"]["pe_image"].read()), frames)


def test_statistics_replace_earlier_ones_in_the_metadata(
    client: Any, writer: Any, run_engine: RunEngine, root: Path
) -> None:
    run_engine.subscribe(writer)
    (uid,) = run_engine(bp.count([detector(root)], num=1, md={"sample": "CeO2", "conversion": {"recipe": None}}))
    before = client[uid].metadata
    for converted in (1, 2):
        statistics = RunStatistics(run_uid=uid, submitted=2, converted=converted, latency_p95=0.25)
        write_statistics(client[uid], statistics)
        after = client[uid].metadata
        assert after["conversion"] == {
            key: value for key, value in statistics.model_dump(mode="json").items() if key != "run_uid"
        }
        assert {key: after[key] for key in before} == dict(before)
    assert before["start"]["conversion"] == {"recipe": None}
    assert len(client[uid].metadata_revisions[:]) == 0


class Flyer:
    """A detector whose frames of a whole fly scan are announced by one stream datum."""

    name = "pe"
    parent = None

    def __init__(self, folder: Path, frames: int) -> None:
        self._folder = folder
        self._frames = frames

    def describe_collect(self) -> dict[str, Any]:
        return {"pe_image": {**IN_STREAM, "dtype_numpy": "<f4", "shape": [1, *SHAPE]}}

    def get_index(self) -> int:
        return self._frames

    def collect_asset_docs(self, index: int | None = None) -> Iterator[tuple[str, Any]]:
        bundle = ComposeStreamResource()(
            mimetype=TIFFS, uri=f"file://localhost{self._folder}/", data_key="pe_image",
            parameters={"chunk_shape": [1, *SHAPE], "template": "p_{:05d}.tif"},
        )  # fmt: skip
        yield "stream_resource", bundle.stream_resource_doc
        indices = StreamRange(start=0, stop=index or self._frames)
        yield "stream_datum", bundle.compose_stream_datum(indices=indices, seq_nums=StreamRange(start=0, stop=0))


def converted(request: FrameRequest) -> FrameReport:
    """Write the frame and report it: some fail, one name was taken, some are text, some have another shape."""
    number = int(Path(request.source).stem.removeprefix("p_"))
    if number % 50 in {7, 8, 9}:
        return failed(request, f"no TIFF: {number}")
    path = Path(request.source.replace("/raw/", "/processed/"))
    if number == 100:
        path = path.with_stem(f"{path.stem}-00001")
    if number in range(200, 210):
        path = path.with_suffix(".esperanto")
    pixels = tifffile.imread(written(path, number))
    if number == 250:
        pixels = pixels.T
        tifffile.imwrite(path, pixels)
    return FrameReport(
        job_id=request.key, source=request.source, output=str(path), outcome="converted", shape=pixels.shape,
        pixel_type="float32", finished=1.7e9 + number, run_uid=request.run_uid, stream=request.stream,
        seq_num=request.seq_num,
    )  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("literal", [True, False], ids=["literal-names", "plain"])
def test_catalogue_has_every_frame_of_a_fly_scan(client: Any, run_engine: RunEngine, root: Path, literal: bool) -> None:
    server = FakeServer(root)
    server.report = converted
    converter = PETifConverter(server.address, name="c", poller=server)
    callback = ConversionCallback(converter, spool=root / "spool.sqlite")
    writer = tiled_writer(client)
    run_engine.subscribe(callback)
    run_engine.subscribe(LiteralNames(writer) if literal else writer)
    flyer = Flyer(root / "raw", 300)

    @bpp.run_decorator(md={})
    def scan() -> Any:
        yield from bps.declare_stream(flyer, name="fly", collect=True)
        yield from bps.collect(flyer, name="fly")

    (uid,) = run_engine(conversion_wrapper(scan(), converter))
    callback.close()
    run = client[uid]
    numbers = set(range(300))
    wrong = {number for number in numbers if number % 50 in {7, 8, 9}}
    streams = {
        "unconverted": wrong,
        "converted-2": set(range(200, 210)) - wrong,
        "converted-3": {250},
    }
    streams["converted"] = numbers.difference(*streams.values())
    for name, expected in streams.items():
        table = run[name].base["internal"].read()
        frames = sorted(expected)
        assert list(table["seq_num"]) == list(range(1, len(frames) + 1)), name
        assert list(table["c_seq_num"]) == [number + 1 for number in frames], name
        assert [Path(raw).name for raw in table["c_raw"]] == [f"p_{number:05d}.tif" for number in frames], name
        assert set(table["c_stream"]) == {"fly"}, name
        if name == "unconverted":
            assert list(table["c_reason"]) == [f"no TIFF: {number}" for number in frames]
            continue
        assert list(table["ts_c_raw"]) == [1.7e9 + number for number in frames], name
        if name != "converted-2":
            written_there = np.stack([tifffile.imread(path) for path in table["c_output"]])
            np.testing.assert_array_equal(run[name]["c_image"].read()[:, 0], written_there)
            assert list(written_there[:, 0, 0]) == [1000 * number for number in frames], name
    assert Path(run["converted"].base["internal"].read()["c_output"][94]).name == "p_00100-00001.tif"
