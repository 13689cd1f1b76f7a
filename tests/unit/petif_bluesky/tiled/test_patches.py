"""Folders of resources as a catalogue needs them."""

import copy
from typing import Any

import pytest
from event_model import compose_resource

from petif_bluesky.tiled.patches import with_trailing_slash
from tests.unit.documents import IMAGE, ComposedRun, FrameFinder, replay


def resource(path: str, spec: str = "AD_TIFF") -> dict[str, Any]:
    extension = "tif" if "TIFF" in spec else "h5"
    settings = {"template": f"%s%s-%5.5d.{extension}", "filename": "sample", "frame_per_point": 1}
    document: dict[str, Any] = compose_resource(
        spec=spec, root="/", resource_path=path, resource_kwargs=settings
    ).resource_doc
    return document


@pytest.mark.parametrize("spec", ["AD_TIFF", "AD_HDF5_SINGLE"])
@pytest.mark.parametrize("path", ["data/raw", "data/raw/", "data/raw//"])
def test_folder_ends_with_one_slash(path: str, spec: str) -> None:
    document = resource(path, spec)
    before = copy.deepcopy(document)
    patched = with_trailing_slash(document)
    assert patched == {**before, "resource_path": "data/raw/"}
    assert document == before


@pytest.mark.parametrize("spec", ["AD_HDF5", "NPY_SEQ"])
def test_resources_of_another_spec_are_unchanged(spec: str) -> None:
    document = resource("data/raw", spec)
    patched = with_trailing_slash(document)
    assert patched == document
    assert patched is not document


@pytest.mark.parametrize("path", ["raw/sample", "raw/sample/"])
def test_trailing_slash_does_not_change_the_files(path: str) -> None:
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
