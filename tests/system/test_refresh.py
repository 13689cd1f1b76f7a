"""`petif refresh`: a run's statistics, written to a real catalogue from a real server."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tango
from click.testing import CliRunner, Result

from petif_bluesky.commands.refresh import refresh
from tango_server.client.client import Client
from tango_server.client.local_server import LocalServer
from tests.system.waiting import until
from tests.tiled_server import open_client, open_tiled, tiled_writer
from tests.unit.documents import ComposedRun

if TYPE_CHECKING:
    from tiled.server import SimpleTiledServer

NOWHERE = "tango://127.0.0.1:9/petif/converter/1#dbase=no"
Put = Callable[..., Path]


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator["SimpleTiledServer"]:
    with open_tiled(tmp_path_factory.mktemp("catalogue"), api_key="secret") as tiled:
        yield tiled


@pytest.fixture(scope="module")
def catalogue(tiled: "SimpleTiledServer") -> Iterator[Any]:
    client = open_client(tiled.uri)
    yield client
    client.context.close()


def catalogued_run(catalogue: Any, *further: str) -> str:
    """Write a run of converters, the first one unnamed, to the catalogue; return its uid."""
    keys = ["conversion", *(f"conversion_{name}" for name in further)]
    facts = {key: {"recipe": {}, "device": f"tango://{key}"} for key in keys}
    run = ComposedRun(tiled_writer(catalogue), **facts, conversion_note="by hand", conversion_more={"a": 1})
    run.stop()
    return run.uid


def call(tiled: "SimpleTiledServer", uid: str, address: str, uri: str = "") -> Result:
    words = [uid, "--tiled", uri or tiled.uri, "--device", address]
    return CliRunner().invoke(refresh, words, env={"COLUMNS": "200", "TILED_API_KEY": ""}, catch_exceptions=False)


def frames(client: Client, put: Put, run_uid: str, count: int, **counts: tuple[int, int]) -> None:
    """Let a run have frames that are all converted."""
    sources = [put("qxrd_f32_64.tif", f"{run_uid.replace('#', '-')}-{number}.tif") for number in range(count)]
    client.submit([{"source": str(source), "run_uid": run_uid} for source in sources], run_counts={run_uid: counts})
    until(lambda: client.run_statistics(run_uid).converted == count, "all are converted")


def test_statistics_are_written_and_printed(
    tiled: "SimpleTiledServer", catalogue: Any, server: LocalServer, put: Put
) -> None:
    client, uid = Client(server.address), catalogued_run(catalogue)
    frames(client, put, uid, 2, primary=(2, 2))
    result = call(tiled, uid, server.address)
    assert result.exit_code == 0, result.output
    assert f"run {uid}, conversion" in result.stdout
    assert "2 frames" in result.stdout
    written = catalogue[uid].metadata["conversion"]
    assert written == client.run_statistics(uid).model_dump(mode="json", exclude={"run_uid", "run_counts"})
    assert written["converted"] == 2
    assert set(catalogue[uid].metadata) == {"start", "stop", "conversion"}


def test_retried_frames_are_written_again(
    tiled: "SimpleTiledServer", catalogue: Any, server: LocalServer, root: Path, put: Put
) -> None:
    client, uid = Client(server.address), catalogued_run(catalogue)
    client.submit([{"source": str(root / "raw" / "late.tif"), "run_uid": uid}])
    until(lambda: client.run_statistics(uid).failed == 1, "it never came")
    assert call(tiled, uid, server.address).exit_code == 0
    assert catalogue[uid].metadata["conversion"]["failed"] == 1
    put("qxrd_f32_64.tif", "late.tif")
    tango.DeviceProxy(server.address).RetryFailed()
    until(lambda: client.run_statistics(uid).converted == 1, "it came")
    assert call(tiled, uid, server.address).exit_code == 0
    stored = catalogue[uid].metadata["conversion"]
    assert (stored["converted"], stored["failed"]) == (1, 0)


def test_every_converter_of_a_run_has_its_own_statistics(
    tiled: "SimpleTiledServer", catalogue: Any, server: LocalServer, put: Put
) -> None:
    client, uid = Client(server.address), catalogued_run(catalogue, "esp", "dark")
    frames(client, put, uid, 1)
    frames(client, put, f"{uid}#esp", 2)
    result = call(tiled, uid, server.address)
    assert result.exit_code == 1
    assert "conversion_dark not written" in result.stderr
    assert f"{uid}#dark" in result.stderr
    assert "tango://conversion_dark" in result.stderr
    metadata = catalogue[uid].metadata
    assert [metadata[key]["converted"] for key in ("conversion", "conversion_esp")] == [1, 2]
    assert "conversion_dark" not in metadata
    assert "conversion_esp" in result.stdout


def test_errors_are_named(
    tiled: "SimpleTiledServer", catalogue: Any, server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiled.client.utils.TILED_RETRY_ATTEMPTS", 1)
    uid = catalogued_run(catalogue)
    base, unused = tiled.uri.partition("?")[0], "http://127.0.0.1:9"
    cases = [
        (call(tiled, "nobody", server.address), 2, (base, "no run 'nobody'")),
        (call(tiled, uid, server.address), 2, ("Unknown run", uid)),
        (call(tiled, uid, NOWHERE), 3, (NOWHERE, "petif serve")),
        (call(tiled, uid, server.address, unused), 3, (unused, "cannot reach the catalogue")),
        (call(tiled, uid, server.address, "tiled.example"), 3, ("tiled.example", "http://")),
        (call(tiled, uid, server.address, base), 2, (base, "TILED_API_KEY")),
        (call(tiled, uid, server.address, f"{base}?api_key=wrong"), 2, (base, "401", "TILED_API_KEY")),
    ]
    for result, code, words in cases:
        assert result.exit_code == code, result.output
        assert all(word in result.stderr for word in words), result.stderr
        assert "secret" not in result.stderr
        assert "api_key" not in result.stderr
    assert "conversion" not in catalogue[uid].metadata
