"""A real RE Manager runs count, scan and the conversion plans from its queue, by the example's startup files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tango_server.client.local_server import LocalServer
from tests.system.converted_run import Image, as_in_the_examples, check
from tests.system.re_manager import REManager
from tests.system.waiting import until

USER = {"user": "tester", "user_group": "primary"}


@pytest.fixture
def manager(root: Path, server: LocalServer, catalogue: Any) -> Iterator[REManager]:
    environment = {"TILED_URI": catalogue[1].uri, "PETIF_DEVICE": server.address, "PETIF_RAW": str(root / "raw")}
    with REManager(root, environment) as manager:
        manager.ask("environment_open")
        until(lambda: manager.ask("status")["worker_environment_exists"], "the startup files are loaded")
        yield manager


def run(manager: REManager, *items: dict[str, Any]) -> list[str]:
    """Run plans from the queue; return the uids of their runs."""
    manager.ask("history_clear")
    for item in items:
        manager.ask("queue_item_add", item={"item_type": "plan", **item}, **USER)
    manager.ask("queue_start")
    until(
        lambda: (
            len(manager.ask("history_get")["items"]) == len(items) and manager.ask("status")["manager_state"] == "idle"
        ),
        "the queue is done",
    )
    results = [item["result"] for item in manager.ask("history_get")["items"]]
    assert [result["exit_status"] for result in results] == ["completed"] * len(items), results
    return [uid for result in results for uid in result["run_uids"]]


def refuses_what_does_not_fit(manager: REManager) -> None:
    """The manager knows the types of the plans' arguments: it refuses such items as they come."""
    for item, name in (
        ({"name": "reprocess_run", "kwargs": {"run": 5, "recipe": "xdi"}}, "run"),
        ({"name": "reprocess_run", "kwargs": {"run": "f00", "recipe": 90}}, "recipe"),
        ({"name": "convert_files", "args": ["converter", "/a.tif"]}, "paths"),
        ({"name": "convert_files", "args": ["converter", ["/a.tif"]], "kwargs": {"timeout": "long"}}, "timeout"),
    ):
        with pytest.raises(AssertionError, match=name):
            manager.ask("queue_item_add", item={"item_type": "plan", **item}, **USER)


def by_item(raw: Image) -> Image:
    return np.rot90(raw, 2).clip(0).astype(np.uint32)


@pytest.mark.long
def test_queue_of_scans_and_conversions(manager: REManager, catalogue: Any, root: Path) -> None:
    client, _ = catalogue
    assert {"convert_files", "convert_folder", "count", "reprocess_run", "scan"} <= set(
        manager.ask("plans_allowed", user_group="primary")["plans_allowed"]
    )
    assert {"converter", "motor", "pe"} <= set(manager.ask("devices_allowed", user_group="primary")["devices_allowed"])
    refuses_what_does_not_fit(manager)
    counted, scanned = run(
        manager,
        {"name": "count", "args": [["pe"]], "kwargs": {"num": 2}},
        {"name": "scan", "args": [["pe"], "motor", -1, 1, 3]},
    )
    first = check(client, counted, as_in_the_examples, 2)
    second = check(client, scanned, as_in_the_examples, 3)
    recipe = {"preset": "xdi-unsigned", "rotation": 180}
    again, files, folder = run(
        manager,
        {"name": "reprocess_run", "kwargs": {"run": scanned, "recipe": recipe}},
        {"name": "convert_files", "args": ["converter", [str(first[0])]], "kwargs": {"recipe": recipe}},
        {"name": "convert_folder", "args": ["converter", str(root / "raw")], "kwargs": {"recipe": recipe}},
    )
    assert check(client, again, by_item, 3) == second
    assert client[again].metadata["start"]["parent_uid"] == scanned
    assert check(client, files, by_item, 1) == first[:1]
    assert sorted(check(client, folder, by_item, 5)) == sorted(first + second)
