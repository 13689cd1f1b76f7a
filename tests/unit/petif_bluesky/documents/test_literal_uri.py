"""Where consolidators look for a file that a stream resource names: compared with bluesky's own and with Tiled's."""

import re
from typing import Any

import pytest
from event_model import compose_run

from petif_bluesky.documents.literal_uri import literal_uri

PATHS = [
    "/data/processed/sample/x-00000.tif",
    "/data/processed/sample/x-00003-00001.tif",
    "/data/processed/other/x-00001.tif",
    "/data/100%/50%d and %s/%06.6d {0} {name}.tif",
    "/data/ä ö/a b;c&d=e+f%20.tif",
]
KEY = {"source": "test", "dtype": "array", "dtype_numpy": "<i4", "shape": [1, 64, 48], "external": "STREAM:"}


def looked_for(module: Any, paths: list[str]) -> tuple[list[str], Any]:
    """Return the files that the consolidator of `module` finds, and the consolidator."""
    from tiled.utils import path_from_uri

    run = compose_run()
    descriptor = run.compose_descriptor(name="converted", data_keys={"image": KEY})
    consolidator = None
    for number, path in enumerate(paths):
        uri, template = literal_uri(path)
        resource, compose_datum = run.compose_stream_resource(
            mimetype="multipart/related;type=image/tiff",
            uri=uri,
            data_key="image",
            parameters={"chunk_shape": [1], "template": template},
        )
        if consolidator is None:
            consolidator = module.consolidator_factory(resource, descriptor.descriptor_doc)
        else:
            consolidator.update_from_stream_resource(resource)
        datum = compose_datum(
            indices={"start": number, "stop": number + 1},
            seq_nums={"start": number + 1, "stop": number + 2},
            descriptor=descriptor.descriptor_doc,
        )
        consolidator.consume_stream_datum(datum)
    assert consolidator is not None
    return [str(path_from_uri(asset.data_uri)) for asset in consolidator.assets], consolidator


def test_tiled_finds_files_with_any_path() -> None:
    from bluesky_tiled_plugins.writing import consolidators as plugins

    found, consolidator = looked_for(plugins, PATHS)
    assert found == PATHS
    assert consolidator.shape == (len(PATHS), 1, 64, 48)
    assert consolidator.chunks == ((1,) * len(PATHS), (1,), (64,), (48,))


@pytest.mark.parametrize("path", PATHS)
def test_blueskys_own_consolidator_finds_the_file(path: str) -> None:
    import bluesky.consolidators

    found, consolidator = looked_for(bluesky.consolidators, [path])
    assert found == [path]
    assert consolidator.shape == (1, 64, 48)


def test_drives_become_file_uris() -> None:
    assert literal_uri("X:\\processed\\a.tif") == ("file://localhost/", "X:/processed/a.tif")


@pytest.mark.parametrize("path", ["processed/a.tif", "C:a.tif", "\\\\server", "//", ""])
def test_relative_paths_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="no file URI"):
        literal_uri(path)


@pytest.mark.parametrize("path", ["/data/a#1.tif", "/data/why?/a.tif"])
def test_paths_tiled_cannot_open_are_refused(path: str) -> None:
    from tiled.utils import path_from_uri

    with pytest.raises(ValueError, match=f"^{re.escape(path)}: Tiled"):
        literal_uri(path)
    assert str(path_from_uri(f"file://localhost{path}")) != path
