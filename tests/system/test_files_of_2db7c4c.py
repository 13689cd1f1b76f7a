"""What the program of commit 2db7c4c has left is read by this one: settings, ledger, spool, 0MQ stream, outputs.

`tests/data/2db7c4c` was written by it on Linux: a server with `petif.toml`, killed while two jobs waited; a session's
spool and its documents as bluesky's 0MQ publisher sends them; a TIFF, an ESPERANTO frame, a frame converted in place.
Its root was /petif-kept.
"""

import base64
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import fabio
import numpy as np
import pytest
import tango
import tifffile

from petif_bluesky.remote import safe_pickle
from petif_bluesky.spool import Spool
from tango_server.client.local_server import LocalServer
from tango_server.conversion import convert_file
from tango_server.conversion.records import record_of
from tango_server.recipe import InPlace, NewFile, Recipe
from tango_server.settings import Configuration
from tests.conftest import DATA
from tests.system.conftest import FAST, settings
from tests.system.waiting import reports
from tests.unit.documents import FrameFinder, replay

KEPT = DATA / "2db7c4c"
OLD_ROOT = "/petif-kept"
TURNED = Recipe.preset("xdi", rotation=90, flip="1")


def kept(name: str) -> Any:
    return json.loads((KEPT / name).read_text())


def moved_database(name: str, folder: Path, root: Path) -> None:
    """Copy a database, with its root where this test has its own."""
    shutil.copy(KEPT / name, folder / name)
    with closing(sqlite3.connect(folder / name)) as database, database:
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall():
            for _, column, kind, *_ in database.execute(f"PRAGMA table_info({table})").fetchall():
                if kind == "TEXT":
                    database.execute(f"UPDATE {table} SET {column}=replace({column}, ?, ?)", (OLD_ROOT, str(root)))


def test_settings_are_read() -> None:
    found = Configuration(file=KEPT / "petif.toml").settings({}, "petif/converter/1")
    assert (found.recipe, found.numworkers, found.backlog_limit) == (TURNED, 1, 1000)
    assert found.read_roots == (Path(OLD_ROOT),)


def test_ledger_keeps_reports_and_waiting_jobs(tmp_path: Path) -> None:
    root, state = tmp_path.resolve() / "data", tmp_path.resolve() / "state"
    (root / "raw").mkdir(parents=True)
    state.mkdir()
    moved_database("ledger.sqlite", state, root)
    for name in ("b.tif", "c.tif"):
        shutil.copy(DATA / "qxrd_f32_64.tif", root / "raw" / name)
    with LocalServer(root, state, settings(*FAST)) as server:
        proxy = tango.DeviceProxy(server.address)
        for run_uid, figures in kept("statistics.json").items():
            now = json.loads(proxy.GetRunStatistics(run_uid))
            assert {name: now[name] for name in figures} == pytest.approx(figures)
        proxy.Resume()
        first, second = reports(proxy, kept("pending.json"))
    assert (first["outcome"], second["outcome"]) == ("converted", "converted")
    raw = tifffile.imread(root / "raw" / "b.tif")
    assert np.array_equal(tifffile.imread(first["output"]), np.fliplr(np.rot90(raw)).astype(np.int32))
    assert np.array_equal(tifffile.imread(second["output"]), np.rot90(raw, 2))


def test_spool_keeps_what_waits_and_what_was_rejected(tmp_path: Path) -> None:
    shutil.copy(KEPT / "spool.sqlite", tmp_path)
    spool = Spool(tmp_path / "spool.sqlite")
    try:
        letters = spool.first(10)
        assert [(letter.run_uid, letter.key) for letter in letters] == [
            ("run-3", "run-3/announced"), ("run-3", "run-3/1"), ("run-3", "run-3/2"),
        ]  # fmt: skip
        assert letters[1].request is not None
        assert letters[1].request["metadata"] == {"note": "\u00b5"}
        assert spool.frames == 2
    finally:
        spool.close()


def test_documents_of_its_sessions_are_read_from_0mq() -> None:
    documents = []
    for line in (KEPT / "zmq.txt").read_text().splitlines():
        _, name, pickled = base64.b64decode(line).split(b" ", 2)
        documents.append((name.decode(), safe_pickle.loads(pickled)))
    assert documents[0][0] == "start"
    assert documents[0][1]["conversion"] == kept("start.json")["conversion"]
    assert Recipe.model_validate(documents[0][1]["conversion"]["recipe"]) == TURNED
    frames = [frame for frames in replay(documents, FrameFinder().feed) for frame in frames]
    raw = f"{OLD_ROOT}/raw/s/sample_0001-0000"
    assert [(frame.path, frame.seq_num) for frame in frames] == [(f"{raw}0.tif", 1), (f"{raw}1.tif", 2)]


def test_outputs_are_known_as_ours_and_made_alike(tmp_path: Path) -> None:
    for folder in ("raw", "processed"):
        (tmp_path / folder).mkdir()
    source = shutil.copy(DATA / "qxrd_f32_64.tif", tmp_path / "raw" / "a.tif")
    shutil.copy(KEPT / "a.tif", tmp_path / "processed" / "a.tif")
    record = record_of(tmp_path / "processed" / "a.tif")
    assert record is not None
    assert record.matches(TURNED)
    report = convert_file(source, TURNED.model_copy(update={"output": NewFile(on_existing="skip")}))
    assert report.outcome == "skipped"
    (tmp_path / "processed" / "a.tif").unlink()
    again = convert_file(source, TURNED).output
    assert np.array_equal(tifffile.imread(again), tifffile.imread(KEPT / "a.tif"))


def test_frame_that_was_converted_in_place_is_not_turned_again(tmp_path: Path) -> None:
    path = Path(shutil.copy(KEPT / "inplace.tif", tmp_path))
    report = convert_file(path, Recipe.preset("xdi", output=InPlace(backup=True)))
    assert report.outcome == "skipped"
    assert path.read_bytes() == (KEPT / "inplace.tif").read_bytes()


def test_esperanto_frame_is_made_alike(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    source = shutil.copy(DATA / "qxrd_f32_64.tif", tmp_path / "raw" / "a.tif")
    record = record_of(KEPT / "a_1_1.esperanto")
    assert record is not None
    esperanto = {
        "omega": {"start": 0.0, "end": 0.5}, "wavelength": 0.29, "distance": 300.0, "pixel_size": 0.2,
        "beam_center": (32.0, 30.0), "exposure": 1.0,
    }  # fmt: skip
    recipe = Recipe.preset("esperanto", esperanto=esperanto, output=NewFile(folder=str(tmp_path / "esperanto")))
    assert record.matches(recipe)
    made, old = Path(convert_file(source, recipe).output), KEPT / "a_1_1.esperanto"
    assert np.array_equal(fabio.open(str(made)).data, fabio.open(str(old)).data)

    def header(path: Path) -> list[str]:
        lines = path.read_bytes()[: 25 * 256].decode("latin-1").split("\r\n")
        return [line for line in lines if not line.startswith(("HISTORY", "TIME"))]

    assert header(made) == header(old)
