"""Detector frames in a catalogue by the names of their own files, read back through a real Tiled server."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import event_model
import numpy as np
import pytest
import tifffile

from petif_bluesky.literal_names import LiteralNames
from tests.tiled_server import open_client, open_tiled, tiled_writer
from tests.unit.documents import NAME, NUMBER, ComposedRun, Recorder

SHAPE = (24, 16)
IMAGE = {"source": "test", "dtype": "array", "dtype_numpy": "<f4", "shape": [1, *SHAPE], "external": "FILESTORE:"}


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("catalogue")
    with open_tiled(folder, readable_storage=[tmp_path_factory.getbasetemp()]) as server:
        client = open_client(server.uri)
        yield client
        client.context.close()


def written(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.arange(np.prod(SHAPE), dtype="<f4").reshape(SHAPE) + 1000 * number)
    return path


def taken(run: ComposedRun, folder: Path, names: list[str | None], **settings: Any) -> None:
    """Compose the events of one detector in `folder`; None for a name is a point without a frame."""
    run.stream(pe={"image": IMAGE, "full_file_name": NAME, "total": NUMBER})
    datum = run.resource(root="/", path=str(folder).lstrip("/"), **settings)
    for point, name in enumerate(names):
        if name is not None:
            path = written(folder / name, point)
            run.event(pe_image=datum(point), pe_full_file_name=str(path), pe_total=float(point))
    run.stop()


@pytest.mark.parametrize(
    "names",
    [
        ["sample-00000.tif", "sample-00001.tif"],
        ["sample-00000.tif", None, None, "sample-00003.tif"],
        ["sample-00001.tif", "sample-00002.tif", "sample-00003.tif"],
        ["sample-00000-00001.tif", "sample-00001-00001.tif", "sample-00002.tif"],
        ["a 50%d {0}/x.tif", "b/x.tif", "c/x.tif"],
        ["sample-00000.tif"],
    ],
    ids=["as predicted", "gaps", "from 1", "names taken", "other folders and names", "one"],
)
def test_the_catalogue_reads_the_very_files_that_were_written(
    catalogue: Any, tmp_path: Path, names: list[str | None]
) -> None:
    for index in range(5):
        written(tmp_path / f"sample-{index:05}.tif", 99)  # what the template would lead to
    run = ComposedRun(LiteralNames(tiled_writer(catalogue)))
    taken(run, tmp_path, names)
    stream = catalogue[run.uid]["primary"]
    files = [tmp_path / name for name in names if name is not None]
    expected = np.stack([tifffile.imread(path) for path in files])
    image = stream["pe_image"]
    np.testing.assert_array_equal(image.read()[:, 0], expected)
    np.testing.assert_array_equal(image[len(files) - 1][0], expected[-1])
    dataset = stream.read()
    np.testing.assert_array_equal(dataset["pe_image"].values[:, 0], expected)
    assert list(dataset["pe_full_file_name"].values) == [str(path) for path in files]


def test_documents_follow_the_event_model_and_the_runs_own_are_left_as_they_were(tmp_path: Path) -> None:
    handed_on = Recorder()
    run = ComposedRun(LiteralNames(handed_on))
    before = copy.deepcopy(run.recorder.documents)
    taken(run, tmp_path, ["sample-00000.tif", "sample-00001.tif"])
    handed_on.check()
    run.recorder.check()
    assert run.recorder.documents[: len(before)] == before
    for event in handed_on.of("event"):
        assert set(event["data"]) == set(event["timestamps"]) == {"pe_full_file_name", "pe_total"}
        assert event["filled"] == {}
    seq_nums = [datum["seq_nums"] for datum in handed_on.of("stream_datum")]
    assert seq_nums == [{"start": 1, "stop": 2}, {"start": 2, "stop": 3}]


@pytest.mark.parametrize(
    ("shape", "settings"),
    [([1, *SHAPE], {"spec": "AD_HDF5", "template": "%s%s-%5.5d.h5"}), ([3, *SHAPE], {"frame_per_point": 3})],
    ids=["another format", "three files per point"],
)
def test_other_images_pass_as_they_are(shape: list[int], settings: dict[str, Any]) -> None:
    handed_on = Recorder()
    run = ComposedRun(LiteralNames(handed_on))
    run.stream(pe={"image": {**IMAGE, "shape": shape}})
    run.event(pe_image=run.resource(**settings)(0))
    run.stop()
    assert handed_on.documents == run.recorder.documents


def test_a_path_that_tiled_cannot_open_is_told_and_keeps_its_template(caplog: pytest.LogCaptureFixture) -> None:
    handed_on = Recorder()
    run = ComposedRun(LiteralNames(handed_on))
    run.stream(pe={"image": IMAGE})
    run.event(pe_image=run.resource(path="raw/sample#1")(0))
    run.stop()
    assert handed_on.documents == run.recorder.documents
    assert "sample#1" in caplog.text


def test_pages_are_taken_as_their_documents(tmp_path: Path) -> None:
    run = ComposedRun(lambda _name, _document: None)
    taken(run, tmp_path, ["sample-00000.tif", "sample-00002.tif"])
    events, datums = run.recorder.of("event"), run.recorder.of("datum")
    handed_on = Recorder()
    subscriber = LiteralNames(handed_on)
    for name, document in run.recorder.documents:
        if name not in {"event", "datum", "stop"}:
            subscriber(name, document)
    subscriber("datum_page", event_model.pack_datum_page(*datums))
    subscriber("event_page", event_model.pack_event_page(*events))
    subscriber("stop", run.recorder.of("stop")[0])
    names = [document["parameters"]["template"].rpartition("/")[2] for document in handed_on.of("stream_resource")]
    assert names == ["sample-00000.tif", "sample-00002.tif"]
    assert len(handed_on.of("event")) == 2


def test_interleaved_runs_are_numbered_each_for_itself_and_forgotten() -> None:
    handed_on = Recorder()
    subscriber = LiteralNames(handed_on)
    runs = [ComposedRun(subscriber), ComposedRun(subscriber)]
    for run in runs:
        run.stream(pe={"image": IMAGE})
    datums = [run.resource(filename=f"run{number}") for number, run in enumerate(runs)]
    for point in range(2):
        for run, datum in zip(runs, datums, strict=True):
            run.event(pe_image=datum(point))
    indices = [datum["indices"]["start"] for datum in handed_on.of("stream_datum")]
    assert indices == [0, 0, 1, 1]
    for run in runs:
        run.stop()
    assert not any((subscriber._single, subscriber._descriptors, subscriber._counts))
