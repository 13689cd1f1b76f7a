"""What a session makes ends with it: by `destroy` and `close`, and when nobody holds it any more."""

import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from petif_bluesky import ConversionCallback, PETifConverter
from petif_bluesky.server_poller import ServerPoller
from petif_bluesky.testing.fake_server import PATIENCE, FakeServer
from petif_bluesky.tiled.statistics import CatalogueStatistics
from tango_server.client.client import Client

NOWHERE = "tango://127.0.0.1:9/petif/converter/1#dbase=no"


def threads(before: set[threading.Thread]) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread not in before and thread.name.startswith("petif-")]


@pytest.fixture
def started() -> Callable[[], list[threading.Thread]]:
    before = set(threading.enumerate())
    return lambda: threads(before)


def ended(found: list[threading.Thread]) -> bool:
    for thread in found:
        thread.join(PATIENCE)
    return not any(thread.is_alive() for thread in found)


def test_destroyed_converter_stops_polling(started: Callable[[], Any]) -> None:
    converters = [PETifConverter(NOWHERE, name="converter") for _ in range(3)]
    found = started()
    assert len(found) == 3
    for converter in converters:
        converter.destroy()
    assert ended(found)


def test_given_poller_keeps_running() -> None:
    poller = ServerPoller(Client(NOWHERE))
    poller.wait_for_first_poll(PATIENCE)
    PETifConverter(NOWHERE, name="converter", poller=poller).destroy()
    polled = threading.Event()
    poller.watch(lambda _: polled.set())
    assert polled.wait(PATIENCE)
    poller.close()


def converter_alone(_folder: Path) -> Any:
    return PETifConverter(NOWHERE, name="converter")


def callback_with_frames_that_wait(folder: Path) -> Any:
    server = FakeServer()
    server.go_down()
    callback = ConversionCallback(
        PETifConverter(server.address, name="c", poller=server), spool=folder / "spool.sqlite"
    )
    callback._spool.put({"key": "a", "run_uid": "run"})
    callback._sender.wake()
    return callback


def statistics_of_a_run(_folder: Path) -> Any:
    server = FakeServer()
    statistics = CatalogueStatistics({}, PETifConverter(server.address, name="c", poller=server))
    statistics("stop", {"run_start": "run"})
    return statistics


@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
@pytest.mark.parametrize("make", [converter_alone, callback_with_frames_that_wait, statistics_of_a_run])
def test_unreferenced_objects_end_their_threads(make: Callable[[Path], Any], started: Any, tmp_path: Path) -> None:
    made = make(tmp_path)
    gone = threading.Event()
    weakref.finalize(made, gone.set)
    found = started()
    assert found
    del made
    gc.collect()
    for thread in found:
        thread.join(0.5)  # it may be in a call, and hold its owner as long
    gc.collect()
    assert ended(found)
    gc.collect()
    assert gone.is_set()
