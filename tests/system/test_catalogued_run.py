"""The frames of runs as read back from a real Tiled catalogue, for documents that no simulated detector makes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from petif_bluesky.catalogue import with_trailing_slash
from petif_bluesky.frames import FrameSelection
from petif_bluesky.literal_names import LiteralNames
from petif_bluesky.raw_frames import FramesNotFoundError, frames_of_run
from tests.tiled_server import open_client, open_tiled, tiled_writer
from tests.unit.documents import IMAGE, IN_STREAM, NAME, NUMBER, ComposedRun


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with open_tiled(tmp_path_factory.mktemp("catalogue"), readable_storage=["/data"]) as tiled:
        client = open_client(tiled.uri)
        yield client
        client.context.close()


@pytest.fixture
def writer(client: Any) -> Any:
    return tiled_writer(client, patches={"resource": with_trailing_slash})


def found(client: Any, run: ComposedRun, selection: FrameSelection | None = None) -> list[tuple[Any, ...]]:
    run.stop()
    raw = frames_of_run(client[run.uid], selection)
    assert raw.uid == run.uid
    return [(Path(frame.path).name, frame.stream, frame.seq_num) for frame in raw.frames]


def test_several_frames_for_each_event(client: Any, writer: Any) -> None:
    run = ComposedRun(writer)
    run.stream(pe={"image": {**IN_STREAM, "shape": [2, 48, 64]}, "temperature": NUMBER})
    datum = run.stream_resource("pe_image", "file://localhost/data/raw/", "a_{:04d}.tif")
    for number in range(2):
        datum(number, number + 1, seq_num=number + 1)
        run.event(pe_temperature=20.0 + number)
    run.stop()
    raw = frames_of_run(client[run.uid])
    assert [(frame.path, frame.seq_num, frame.metadata["pe_temperature"]) for frame in raw.frames] == [
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


@pytest.mark.parametrize("literal", [True, False], ids=["literal-names", "templates"])
def test_names_read_back_go_before_those_of_the_template(client: Any, writer: Any, literal: bool) -> None:
    run = ComposedRun(LiteralNames(writer) if literal else writer, sample_name="CeO2")
    run.stream(pe={"image": IMAGE, "full_file_name": NAME})
    datum = run.resource()
    names = ["sample-00000.tif", "sample-00001-00001.tif", "sample-00002.tif"]
    for number, name in enumerate(names):
        run.event(pe_image=datum(number), pe_full_file_name=f"/data/raw/sample/{name}")
    assert found(client, run) == [(name, "primary", number) for number, name in enumerate(names, start=1)]


def test_other_formats_are_no_frames(client: Any, writer: Any) -> None:
    run = ComposedRun(writer)
    run.stream(eiger={"image": IN_STREAM})
    run.stream_resource(
        "eiger_image", "file://localhost/data/raw/a.h5", "", mimetype="application/x-hdf5", dataset="entry/data"
    )(0, 2)
    run.stop()
    with pytest.raises(FramesNotFoundError, match=rf"run {run.uid}: found no frames \(.*x-hdf5 is no TIFF"):
        frames_of_run(client[run.uid])
