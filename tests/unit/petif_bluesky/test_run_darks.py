"""The dark of each frame at the server: dark runs as those of xpdAcq, slow catalogues, restarted sessions."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from petif_bluesky import ConversionCallback, PETifConverter
from petif_bluesky.delivery.known_darks import KnownDarks
from petif_bluesky.documents.darks import Dark
from petif_bluesky.documents.detector_settings import DetectorSettings
from petif_bluesky.documents.errors import FramesNotFoundError
from petif_bluesky.documents.masters_in_use import dark_alarms, masters_in_use
from petif_bluesky.testing.fake_server import PATIENCE, FakeServer
from petif_bluesky.tiled.raw_frames import darks_of_run, frames_of_run
from tango_server.messages import FrameRequest
from tango_server.recipe import Recipe
from tango_server.recipe.corrections import DARK_FACTS, Corrections
from tests.unit.documents import IMAGE, IN_STREAM, NUMBER, ComposedRun, Document

RECIPE = Recipe.preset("xdi", corrections={"dark": "run"})
PE: dict[str, Document] = {"image": IMAGE, "exposure_time": NUMBER}
DARK = Dark("earlier", DetectorSettings("pe", "pe_image", (48, 64), 0.1, {}), ("/data/raw/d.tif",), 1.7e9)


class Catalogued:
    """A run that brings its documents, as the clients of some catalogues do."""

    def __init__(self, run: ComposedRun) -> None:
        self._documents = run.recorder.documents

    def documents(self) -> Iterator[tuple[str, Document]]:
        yield from self._documents


def metadata(recipe: Recipe = RECIPE, **others: Any) -> dict[str, Any]:
    return {"conversion": {"recipe": recipe.model_dump(mode="json")}, **others}


def take(subscriber: Any, *frames: str, exposure: float = 0.1, stream: str = "primary", **start: Any) -> ComposedRun:
    """A run with one frame for each name, complete."""
    run = ComposedRun(subscriber, **start)
    run.stream(stream, pe=PE)
    for name in frames:
        run.event(stream, pe_image=run.resource(filename=name)(0), pe_exposure_time=exposure)
    run.stop()
    return run


def requests(server: FakeServer, count: int) -> list[FrameRequest]:
    server.until(lambda: len(server.requests) >= count)
    assert len(server.requests) == count
    return list(server.requests.values())


def dark_of(request: FrameRequest) -> Any:
    assert request.recipe is not None
    assert request.recipe.corrections is not None
    return request.recipe.corrections.dark


def path(name: str) -> str:
    return f"/data/raw/sample/{name}-00000.tif"


def test_dark_run_of_this_session_serves_runs_that_name_it(
    callback: ConversionCallback, converter: PETifConverter, server: FakeServer
) -> None:
    dark = take(callback, "d1", "d2", dark_frame=True, **metadata())
    take(callback, "newer", dark_frame=True, **metadata())
    named = take(callback, "l1", sc_dk_field_uid=dark.uid, **metadata())
    longer = take(callback, "l2", exposure=10.0, sc_dk_field_uid=dark.uid, **metadata())
    unnamed = take(callback, "l3", sc_dk_field_uid=None, **metadata())
    first, second, third = requests(server, 3)
    assert dark_of(first) == (path("d1"), path("d2"))
    assert first.metadata[DARK_FACTS]["run_uid"] == dark.uid
    assert dark_of(second) == "run"
    assert "0.1 s, the frame's 10 s" in second.metadata[DARK_FACTS]["note"]
    assert dark_of(third) == path("newer")
    assert "newest known dark" in third.metadata[DARK_FACTS]["note"]
    assert [converter.runs.submitted(run.uid) for run in (dark, named, longer, unnamed)] == [0, 1, 1, 1]
    assert converter.runs.counts(dark.uid) == {"primary": (2, 0)}, "a dark frame that is left out has been read"


def test_other_recipes_convert_dark_frames(callback: ConversionCallback, server: FakeServer) -> None:
    take(callback, "d1", dark_frame=True, **metadata(Recipe.preset("xdi")))
    take(callback, "d2", stream="dark", **metadata(Recipe.preset("xdi", corrections={"dark": "/masters/d.tif"})))
    take(callback, "l1", **metadata())
    assert [request.source for request in requests(server, 3)] == [path("d1"), path("d2"), path("l1")]
    assert dark_of(requests(server, 3)[2]) == path("d2"), "its darks are known all the same"
    assert DARK_FACTS not in requests(server, 3)[1].metadata


def test_darks_announced_by_stream_documents(callback: ConversionCallback, server: FakeServer) -> None:
    run = ComposedRun(callback, **metadata())
    for stream in ("dark", "primary"):
        run.stream(stream, pe={"image": IN_STREAM, "exposure_time": NUMBER})
    run.stream("fly", pe={"image": IN_STREAM})
    datum = run.stream_resource("pe_image", "file://localhost/data/raw/", "a_{:02d}.tif")
    for index, stream in enumerate(("dark", "primary", "dark", "primary")):
        datum(index, index + 1, stream=stream, seq_num=1 + index // 2)
        run.event(stream, pe_exposure_time=0.1)
    datum(4, 6, stream="fly")
    run.stop()
    found = {request.source: dark_of(request) for request in requests(server, 4)}
    darks = {1: 0, 3: 2, 4: 2, 5: 2}
    assert found == {f"/data/raw/a_0{light}.tif": f"/data/raw/a_0{dark}.tif" for light, dark in darks.items()}


def test_dark_in_a_file_of_several_frames_is_refused_by_name(callback: ConversionCallback, server: FakeServer) -> None:
    take(callback, "older", stream="dark")  # fits, but the run has a dark of its own
    run = ComposedRun(callback, **metadata())
    for stream in ("dark", "primary"):
        run.stream(stream, pe={"image": IN_STREAM, "exposure_time": NUMBER})
    where = {"mimetype": "application/x-hdf5", "dataset": "/entry/data"}
    for number, stream in enumerate(("dark", "primary")):
        uri = f"file://localhost/data/raw/{stream}.h5"
        run.stream_resource("pe_image", uri, "", **where)(number, number + 1, stream=stream)
        run.event(stream, pe_exposure_time=0.1)
    run.stop()
    *_, request = requests(server, 2)
    assert (request.source, request.frame) == ("/data/raw/primary.h5::/entry/data", 1)
    assert request.recipe == RECIPE  # unresolved: the server acts as on_missing_dark says
    note = request.metadata[DARK_FACTS]["note"]
    assert "the dark frame /data/raw/dark.h5::/entry/data#0 is one of several in its file" in note


def test_dark_run_in_files_of_several_frames_is_refused_by_name(
    callback: ConversionCallback, server: FakeServer
) -> None:
    where = {"mimetype": "application/x-hdf5", "dataset": "/entry/data"}
    dark_run = ComposedRun(callback, dark_frame=True, **metadata())
    dark_run.stream(pe={"image": IN_STREAM, "exposure_time": NUMBER})
    dark_run.stream_resource("pe_image", "file://localhost/data/raw/dark.h5", "", **where)(0, 1)
    dark_run.event(pe_exposure_time=0.1)
    dark_run.stop()
    take(callback, "light", sc_dk_field_uid=dark_run.uid, **metadata())
    (request,) = requests(server, 1)
    note = request.metadata[DARK_FACTS]["note"]
    assert f"the dark run {dark_run.uid} is not known: the dark frame /data/raw/dark.h5::/entry/data#0" in note
    with pytest.raises(FramesNotFoundError, match=r"dark\.h5::/entry/data#0 is one of several in its file"):
        darks_of_run(Catalogued(dark_run))


def test_dark_run_is_looked_up_while_its_frames_wait(
    callback: ConversionCallback, converter: PETifConverter, server: FakeServer
) -> None:
    dark = take(lambda _name, _document: None, "d1", "d2")
    answer, threads = threading.Event(), list[str]()

    def find(uid: str) -> list[Dark]:
        threads.append(threading.current_thread().name)
        assert (uid, answer.wait(PATIENCE)) == (dark.uid, True)
        return darks_of_run(Catalogued(dark))

    callback.darks.find = find
    began = time.monotonic()
    light = take(callback, "l1", "l2", sc_dk_field_uid=dark.uid, **metadata())
    own = take(callback, "d3", stream="dark", sc_dk_field_uid=dark.uid, **metadata())
    assert time.monotonic() - began < 1.0, "the RunEngine does not wait"
    assert converter.runs.counts(light.uid) == {"primary": (0, 0)}
    assert converter.runs.held(light.uid) == 2
    assert not converter.runs.is_closed(light.uid)
    assert converter.runs.is_closed(own.uid)
    answer.set()
    found = requests(server, 2)
    assert [dark_of(request) for request in found] == [(path("d1"), path("d2"))] * 2
    server.until(lambda: converter.runs.is_closed(light.uid))
    assert converter.runs.counts(light.uid) == {"primary": (2, 2)}
    take(callback, "l3", sc_dk_field_uid=dark.uid, **metadata())
    assert dark_of(requests(server, 3)[2]) == (path("d1"), path("d2"))
    assert threads == ["petif-darks"], "once, and not in the RunEngine's thread"


@pytest.mark.parametrize("why", ["error", "no answer", "end of the session"])
def test_frames_wait_for_a_bounded_time(
    why: str, converter: PETifConverter, server: FakeServer, tmp_path: Path
) -> None:
    never = threading.Event()

    def find(_uid: str) -> list[Dark]:
        if why != "error":
            never.wait(PATIENCE)
        raise ConnectionError("the catalogue is away")

    callback = ConversionCallback(converter, spool=tmp_path / "own.sqlite", find_darks=find)
    callback.darks.patience = 0.05 if why == "no answer" else PATIENCE
    take(callback, "l1", sc_dk_field_uid="f00", **metadata())
    if why == "end of the session":
        callback.close()
        callback = ConversionCallback(converter, spool=tmp_path / "own.sqlite")
    (request,) = requests(server, 1)
    callback.close()
    never.set()
    assert dark_of(request) == "run"
    reasons = {"error": "the catalogue is away", "no answer": "the catalogue has not answered within 0.05 s"}
    reason = reasons.get(why, "the session ended before the catalogue answered")
    assert f"the dark run f00 is not known: {reason}" in request.metadata[DARK_FACTS]["note"]


def test_restarted_session_knows_its_darks(converter: PETifConverter, server: FakeServer, tmp_path: Path) -> None:
    first = ConversionCallback(converter, spool=tmp_path / "own.sqlite")
    dark = take(first, "d1", "d2", dark_frame=True, **metadata())
    first.close()
    kept = json.loads((tmp_path / "own.darks.json").read_text())
    assert [each["paths"] for each in kept["darks"]] == [[path("d1")], [path("d2")]]
    second = ConversionCallback(converter, spool=tmp_path / "own.sqlite")
    take(second, "l1", **metadata())
    take(second, "l2", sc_dk_field_uid=dark.uid, **metadata())
    found = requests(server, 2)
    second.close()
    assert [dark_of(request) for request in found] == [(path("d1"), path("d2"))] * 2


@pytest.mark.parametrize("content", [b"", b"{}", b'{"darks": [1]}', b"\xff", b'{"darks": [{"shape": 3}]}'])
def test_damaged_file_of_darks_stops_no_session(content: bytes, tmp_path: Path, caplog: Any) -> None:
    file = KnownDarks(tmp_path / "spool.sqlite")
    file.path.write_bytes(content)
    assert file.read() == []
    assert str(file.path) in caplog.text
    file.write([DARK])
    assert file.read() == [DARK]
    assert list(tmp_path.iterdir()) == [file.path]


def test_file_of_darks_stays_small(tmp_path: Path, caplog: Any) -> None:
    file = KnownDarks(tmp_path / "spool.sqlite")
    file.write(replace(DARK, paths=(f"/{number}.tif",), time=float(number)) for number in range(1000))
    assert [dark.time for dark in file.read()] == [float(number) for number in range(950, 1000)]
    away = KnownDarks(tmp_path / "nowhere" / "spool.sqlite")
    for _ in range(2):
        away.write([DARK])
    assert caplog.text.count("cannot write") == 1


def test_servers_recipe_with_the_dark_of_the_run_is_sent(tmp_path: Path) -> None:
    server = FakeServer(recipe=RECIPE)
    converter = PETifConverter(server.address, name="converter", poller=server)
    callback = ConversionCallback(converter, spool=tmp_path / "own.sqlite")
    take(callback, "d1", stream="dark")
    take(callback, "l1")
    (request,) = requests(server, 1)
    callback.close()
    assert dark_of(request) == path("d1")


def test_reprocessing_takes_a_later_dark_where_there_is_no_earlier_one() -> None:
    dark_run = take(lambda _name, _document: None, "named")
    run = ComposedRun(lambda _name, _document: None, sc_dk_field_uid=dark_run.uid)
    for stream in ("primary", "dark"):
        run.stream(stream, pe=PE)
    for stream, name, exposure in (
        ("primary", "l1", 0.1),
        ("dark", "d1", 0.1),
        ("dark", "d2", 0.2),
        ("primary", "l2", 0.2),
        ("primary", "l3", 5.0),
    ):
        run.event(stream, pe_image=run.resource(filename=name)(0), pe_exposure_time=exposure)
    run.stop()
    first, second, third = frames_of_run(Catalogued(run), recipe=RECIPE)
    assert [frame.path for frame in (first, second, third)] == [path("l1"), path("l2"), path("l3")]
    assert first.dark is not None
    assert first.dark.paths == (path("d1"),)
    assert "taken after the frame" in first.dark.facts.note
    assert "dark run" in first.dark.facts.note, "why the one that is named was not taken"
    assert second.dark is not None
    assert (second.dark.paths, "after the frame" in second.dark.facts.note) == ((path("d2"),), False)
    assert third.dark is not None
    assert third.dark.paths == ()
    catalogue = {dark_run.uid: Catalogued(dark_run)}
    named = frames_of_run(Catalogued(run), recipe=RECIPE, catalogue=catalogue)[0].dark
    assert named is not None
    assert (named.paths, named.facts.run_uid) == ((path("named"),), dark_run.uid)
    assert len(frames_of_run(Catalogued(run), recipe=Recipe.preset("xdi"))) == 5, "other recipes convert the darks"


def test_masters_in_use_are_described() -> None:
    now = DARK.time + 3 * 3600
    masters = Corrections(dark="run", dark_max_age=3600, flat="/masters/flat.tif", mask="/masters/mask.edf")
    assert masters_in_use(masters, [DARK], now) == ["pe: dark d.tif (0.1 s, 3 h old), flat flat.tif, mask mask.edf"]
    assert dark_alarms(masters, [DARK], now) == ["the newest dark of pe is 3 h old, dark_max_age is 1 h"]
    assert dark_alarms(masters, [DARK], DARK.time + 60) == []
    assert masters_in_use(masters, [], now)[0].startswith("all detectors: no dark is known yet")
    fixed = Corrections(dark="/masters/d.tif")
    assert masters_in_use(fixed, [DARK], now) == ["all detectors: dark d.tif"]
    assert dark_alarms(fixed, [DARK], now) == []
    assert masters_in_use(Corrections(saturation=60000), [DARK], now) == []
