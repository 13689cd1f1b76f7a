"""What a real Tiled catalogue (in a thread of this process) gets to know of runs and their conversion."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import numpy as np
import pytest
import tifffile
from bluesky import RunEngine
from event_model import compose_resource

from petif_bluesky.catalogue import with_trailing_slash, write_statistics
from petif_bluesky.frames import FrameFinder
from tango_server.messages import RunStatistics
from tests.tiled_server import open_client, open_tiled, tiled_writer
from tests.unit.documents import IMAGE, ComposedRun, replay


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("catalogue")
    with open_tiled(folder, readable_storage=[tmp_path_factory.getbasetemp()]) as server:
        client = open_client(server.uri)
        yield client
        client.context.close()


def resource(path: str, spec: str = "AD_TIFF") -> dict[str, Any]:
    extension = "tif" if "TIFF" in spec else "h5"
    settings = {"template": f"%s%s-%5.5d.{extension}", "filename": "sample", "frame_per_point": 1}
    document: dict[str, Any] = compose_resource(
        spec=spec, root="/", resource_path=path, resource_kwargs=settings
    ).resource_doc
    return document


@pytest.mark.parametrize("path", ["data/raw", "data/raw/", "data/raw//"])
def test_folder_ends_with_one_slash(path: str) -> None:
    document = resource(path)
    before = copy.deepcopy(document)
    patched = with_trailing_slash(document)
    assert patched == {**before, "resource_path": "data/raw/"}
    assert document == before


@pytest.mark.parametrize("spec", ["AD_HDF5", "NPY_SEQ"])
def test_resources_of_another_spec_are_as_they_were(spec: str) -> None:
    document = resource("data/raw", spec)
    patched = with_trailing_slash(document)
    assert patched == document
    assert patched is not document


@pytest.mark.parametrize("path", ["raw/sample", "raw/sample/"])
def test_frames_are_found_in_the_same_files_with_and_without_the_slash(path: str) -> None:
    run = ComposedRun(lambda _name, _document: None)
    run.stream(pe={"image": IMAGE})
    run.event(pe_image=run.resource(path=path)(0))
    patched = [
        (name, with_trailing_slash(document) if name == "resource" else document)
        for name, document in run.recorder.documents
    ]
    (as_it_was,) = replay(run.recorder.documents, FrameFinder().feed)[-1]
    (with_slash,) = replay(patched, FrameFinder().feed)[-1]
    assert as_it_was == with_slash
    assert as_it_was.path == "/data/raw/sample/sample-00000.tif"


def test_catalogue_finds_the_frames_that_the_detector_wrote(
    catalogue: Any, run_engine: RunEngine, make_detector: Callable[..., Any], tmp_path: Path
) -> None:
    run_engine.subscribe(tiled_writer(catalogue, patches={"resource": with_trailing_slash}))
    (uid,) = run_engine(bp.count([make_detector()], num=2))
    frames = [tifffile.imread(path) for path in sorted((tmp_path / "raw" / "sample").glob("*.tif"))]
    np.testing.assert_array_equal(np.squeeze(catalogue[uid]["primary"]["pe_image"].read()), frames)


def test_statistics_stand_beside_the_documents_and_replace_earlier_ones(
    catalogue: Any, run_engine: RunEngine, make_detector: Callable[..., Any]
) -> None:
    run_engine.subscribe(tiled_writer(catalogue, patches={"resource": with_trailing_slash}))
    (uid,) = run_engine(bp.count([make_detector()], num=1, md={"sample": "CeO2", "conversion": {"recipe": None}}))
    before = catalogue[uid].metadata
    for converted in (1, 2):
        statistics = RunStatistics(run_uid=uid, submitted=2, converted=converted, latency_p95=0.25)
        write_statistics(catalogue[uid], statistics)
        after = catalogue[uid].metadata
        assert after["conversion"] == {
            key: value for key, value in statistics.model_dump(mode="json").items() if key != "run_uid"
        }
        assert {key: after[key] for key in before} == dict(before)
    assert before["start"]["conversion"] == {"recipe": None}
    assert len(catalogue[uid].metadata_revisions[:]) == 0
