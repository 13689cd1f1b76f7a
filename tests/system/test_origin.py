"""A field that is added to what request and report share arrives everywhere, with no line in between."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import tango

import tango_server
from tango_server.client.local_server import LocalServer
from tests.conftest import DATA
from tests.system.conftest import FAST, settings
from tests.system.waiting import reports, submit

POINT = {"row": 3, "column": {"of": "grid", "number": 7}}
FIELD = """
class Column(_Message):
    of: str
    number: int


class Point(_Message):
    row: int
    column: Column


class FrameOrigin(_Message):
    point: Point | None = None
"""
WITNESS = """
    task.job.output.parent.mkdir(exist_ok=True)
    task.job.output.with_suffix(".seen").write_text(task.job.request.point.model_dump_json())
    try:
        return _attempt(task)
"""


def replaced(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


@pytest.fixture
def changed_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the server's package with one more field, nested, and a worker that writes down what it has of it."""
    package = tmp_path / "changed" / "tango_server"
    shutil.copytree(Path(tango_server.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    replaced(package / "messages.py", "\nclass FrameOrigin(_Message):\n", FIELD)
    replaced(package / "jobs" / "executors" / "worker.py", "\n    try:\n        return _attempt(task)\n", WITNESS)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))


def request(root: Path, name: str, **fields: Any) -> dict[str, Any]:
    return {"source": str(root / "raw" / f"{name}.tif"), "run_uid": "run-1", "point": POINT, **fields}


@pytest.mark.usefixtures("changed_packages")
def test_new_nested_field_reaches_worker_ledger_and_every_report(root: Path) -> None:
    for name in ("converted", "cancelled"):
        shutil.copy(DATA / "qxrd_f32_64.tif", root / "raw" / f"{name}.tif")
    (root / "raw" / "failed.tif").write_bytes(b"no image")
    with LocalServer(root, root / "state", settings(*FAST)) as server:
        proxy = tango.DeviceProxy(server.address)
        proxy.Pause()
        accepted = submit(proxy, *(request(root, name) for name in ("converted", "cancelled", "failed")))
        assert submit(proxy, request(root, "refused", seq_num="x"))["refused"]
        os.kill(server.pid, signal.SIGKILL)
    with LocalServer(root, root / "state", settings(*FAST)) as server:
        proxy = tango.DeviceProxy(server.address)
        chosen = json.dumps({"job_ids": [accepted["jobs"][1]["job_id"]]})
        assert json.loads(proxy.Cancel(chosen)) == {"cancelled": 1}
        proxy.Resume()
        found = reports(proxy, accepted)
        of_run = json.loads(proxy.GetReports(json.dumps({"run_uid": "run-1"})))["reports"]
    assert [one["outcome"] for one in found] == ["converted", "skipped", "failed"]
    assert sorted(one["outcome"] for one in of_run) == ["converted", "failed", "failed", "skipped"]
    assert all(one["point"] == POINT for one in of_run)
    assert json.loads((root / "processed" / "converted.seen").read_text()) == POINT
