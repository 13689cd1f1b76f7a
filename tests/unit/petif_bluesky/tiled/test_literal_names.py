"""Detector frames in run documents by the names of their own files."""

import copy
from pathlib import Path
from typing import Any

import event_model
import pytest

from petif_bluesky.tiled.literal_names import LiteralNames
from tests.unit.documents import ComposedRun, Recorder
from tests.unit.named_frames import IMAGE, SHAPE, taken


def test_documents_are_valid_and_originals_unchanged(tmp_path: Path) -> None:
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
def test_other_images_are_unchanged(shape: list[int], settings: dict[str, Any]) -> None:
    handed_on = Recorder()
    run = ComposedRun(LiteralNames(handed_on))
    run.stream(pe={"image": {**IMAGE, "shape": shape}})
    run.event(pe_image=run.resource(**settings)(0))
    run.stop()
    assert handed_on.documents == run.recorder.documents


def test_path_tiled_cannot_open_keeps_its_template(caplog: pytest.LogCaptureFixture) -> None:
    handed_on = Recorder()
    run = ComposedRun(LiteralNames(handed_on))
    run.stream(pe={"image": IMAGE})
    run.event(pe_image=run.resource(path="raw/sample#1")(0))
    run.stop()
    assert handed_on.documents == run.recorder.documents
    assert "sample#1" in caplog.text


def test_pages_are_unpacked(tmp_path: Path) -> None:
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


def test_interleaved_runs_are_numbered_separately() -> None:
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
