"""Every shape of run documents through the callback to a real server: each output file and pixel is as numpy has it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tango
import tifffile

from petif_bluesky import ConversionCallback, PETifConverter
from petif_bluesky.server_poller import ServerPoller
from tango_server.client.client import Client
from tango_server.client.local_server import LocalServer
from tango_server.recipe import Recipe
from tests.system.conftest import FAST, settings
from tests.system.waiting import all_done, until
from tests.unit.document_shapes import SHAPES

RECIPE = Recipe.preset("xdi", rotation=90, flip="1")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, long_lived: set[int]) -> Iterator[tuple[LocalServer, Path]]:
    """One server for the whole table, and its root."""
    root = tmp_path_factory.mktemp("shapes").resolve()
    with LocalServer(root, root / "state", [*settings(*FAST)]) as server:
        long_lived.update({server.pid, *(child.pid for child in _children(server.pid))})
        yield server, root


def _children(pid: int) -> list[Any]:
    return list(psutil.Process(pid).children(recursive=True))


@pytest.mark.parametrize("name", SHAPES)
def test_every_frame_of_a_shape_is_converted(name: str, served: tuple[LocalServer, Path]) -> None:
    server, root = served
    raw, processed = root / name / "raw", root / name / "processed"
    shape = SHAPES[name](str(raw))
    sources = [Path(path) for path, *_ in shape.expected]
    pixels = np.random.default_rng(0).normal(0, 1000, (len(sources), 48, 64)).astype(np.float32)
    for source, image in zip(sources, pixels, strict=True):
        source.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(source, image)
    poller = ServerPoller(Client(server.address))
    converter = PETifConverter(server.address, name="converter", poller=poller)
    callback = ConversionCallback(converter, spool=root / f"{name}.sqlite")
    run_uid = _play(shape.documents, callback)
    proxy = tango.DeviceProxy(server.address)
    until(lambda: _submitted(converter.client, run_uid) == len(sources), "the server has every frame")
    all_done(proxy)
    until(lambda: converter.client.run_statistics(run_uid).pending == 0, "every frame has its report")
    assert converter.client.run_statistics(run_uid).converted == len(sources)
    callback.close()
    poller.close()
    outputs = [processed / source.relative_to(raw) for source in sources]
    assert sorted(path for path in processed.rglob("*") if path.is_file()) == sorted(outputs)
    for output, image in zip(outputs, pixels, strict=True):
        np.testing.assert_array_equal(tifffile.imread(output), np.flip(np.rot90(image), 1).astype(np.int32))


def _play(documents: list[tuple[str, dict[str, Any]]], callback: ConversionCallback) -> str:
    """Send a run with the recipe in its start document; return its uid."""
    _, start = documents[0]
    conversion = {"recipe": RECIPE.model_dump(mode="json")}
    for kind, document in documents:
        callback(kind, {**document, "conversion": conversion} if kind == "start" else document)
    uid: str = start["uid"]
    return uid


def _submitted(client: Client, run_uid: str) -> int:
    try:
        return client.run_statistics(run_uid).submitted
    except LookupError:  # the announcement is still on its way
        return -1
