"""Every spelling of a recipe means the same in every place, and a wrong one is refused everywhere in the same words."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import tango
from bluesky import RunEngine
from bluesky import plan_stubs as bps
from bluesky.plans import count
from bluesky.utils import FailedStatus
from bluesky.utils import plan as queueable
from bluesky_queueserver.manager.profile_ops import existing_plans_and_devices_from_nspace, prepare_plan, validate_plan
from click.testing import CliRunner
from ophyd import Component, Device, Signal
from tiled.utils import DictView

from petif_bluesky import (
    ConversionCallback,
    ConversionPreprocessor,
    PETifConverter,
    conversion_decorator,
    conversion_wrapper,
)
from petif_bluesky.plans import convert_files, convert_folder, reprocess_run
from petif_bluesky.server_poller import ServerPoller
from tango_server.client.client import Client
from tango_server.client.local_server import LocalServer
from tango_server.commands.assignments import as_lines, assignment
from tango_server.commands.serve import serve
from tango_server.device.property_lines import from_lines
from tango_server.recipe import NewFile, Recipe
from tango_server.settings import Configuration
from tests.system.conftest import settings
from tests.system.tango_database import RegisteredServer, TangoDatabase
from tests.system.waiting import reports, submit
from tests.unit.documents import NAME, ComposedRun

XDI = Recipe.preset("xdi")
TURNED = Recipe.preset("xdi", rotation=90)
SPELLINGS: dict[str, tuple[Any, Recipe]] = {
    "Recipe": (TURNED, TURNED),
    "preset": ("xdi", XDI),
    "preset as JSON": ('"xdi"', XDI),
    "fields": (TURNED.model_dump(mode="json"), TURNED),
    "fields on a preset": ({"preset": "xdi", "rotation": 90}, TURNED),
    "fields as JSON": (TURNED.model_dump_json(), TURNED),
    "fields in a catalogue": (DictView({"preset": "xdi", "rotation": 90, "output": DictView({})}), TURNED),
    "fields on a preset as JSON": ('{"preset": "xdi", "rotation": 90}', TURNED),
}
WRONG: dict[str, Any] = {
    "preset": "xid",
    "preset of fields": {"preset": "xid"},
    "broken JSON": '{"preset": "xdi", "rotation": 90',
    "rotation": {"preset": "xdi", "rotation": 45},
    "rotation as JSON": '{"preset": "xdi", "rotation": 45}',
    "name": {"preset": "xdi", "rotatoin": 90},
    "name in the output": {"preset": "xdi", "output": {"foldr": "/data"}},
    "two": {"rotation": 45, "flip": "2"},
    "number": 5,
    "list": ["xdi"],
}
UNSAFE = {"preset": "xdi", "output": {"mode": "in_place"}}
"""A recipe that would replace the frames of a run."""


def as_json(given: Any) -> Any:
    """Return a spelling as JSON carries it, in requests and queues."""
    match given:
        case Recipe():
            return given.model_dump(mode="json")
        case DictView():
            return {name: as_json(value) for name, value in given.items()}
    return given


def as_text(given: Any) -> str:
    """Return a spelling for places that take text only."""
    return given if isinstance(given, str) else json.dumps(as_json(given))


def refusal_of(given: Any) -> str:
    with pytest.raises(ValueError, match="recipe") as caught:
        Recipe.parse(given).fit_for_run()
    return str(caught.value)


class RefusedError(Exception):
    """A request or a setting was refused."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A folder with a frame in its `raw`."""
    folder = tmp_path_factory.mktemp("spellings").resolve()
    (folder / "raw").mkdir()
    shutil.copy(data / "qxrd_f32_64.tif", folder / "raw" / "a.tif")
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """The address of the server of all tests."""
    with LocalServer(folder, folder / "state", settings("numworkers=1", "sidecar_timeout=0")) as server:
        yield server.address


class Named(Device):
    """A detector that only names its file."""

    full_file_name = Component(Signal, value="")


class Bench:
    """A session with the server."""

    def __init__(self, engine: RunEngine, address: str, folder: Path) -> None:
        self.engine, self.folder = engine, folder
        self.proxy = tango.DeviceProxy(address)
        self.frame = str(folder / "raw" / "a.tif")
        self._poller = ServerPoller(Client(address))
        self._poller.wait_for_first_poll(10)
        self.converter = PETifConverter(address, name="converter", poller=self._poller)
        self._callback: ConversionCallback | None = None
        self.starts: list[Mapping[str, Any]] = []
        engine.subscribe(lambda _name, document: self.starts.append(document), "start")

    def close(self) -> None:
        if self._callback is not None:
            self._callback.close()
        self._poller.close()

    def in_start(self, *plans: Any, **metadata: Any) -> str:
        """Return the hash of the recipe in the start document of the run of the last plan."""
        for plan in plans:
            self.engine(plan, **metadata)
        conversion = self.starts[-1]["conversion"]
        recipe = Recipe.model_validate(conversion["recipe"])
        assert (conversion["recipe"], conversion["recipe_source"]) == (recipe.model_dump(mode="json"), "run")
        return recipe.hash

    def wrapped(self, plan: Any, **options: Any) -> Any:
        return conversion_wrapper(plan, self.converter, **options)

    def of_callback(self, plan: Any, **metadata: Any) -> str:
        """Return the hash of the recipe that a run's only frame has been converted with, sent by the callback."""
        if self._callback is None:
            self._callback = ConversionCallback(self.converter, spool=self.folder / f"callback-{uuid4().hex}.sqlite")
            self.engine.subscribe(self._callback)
        self.engine(plan, **metadata)
        statistics = self.converter.client.run_statistics(self.starts[-1]["uid"])
        (report,) = self.converter.client.reports_of_run(self.starts.pop()["uid"])
        if report.outcome == "failed":
            assert (statistics.submitted, statistics.failed, statistics.pending) == (1, 1, 0)
            raise RefusedError(report.reason)
        return report.recipe_hash or ""

    def scan(self, num: int = 1) -> Any:
        """Return a plan whose only point names the frame, with the recipe of the preprocessor to be replaced."""
        detector = Named(name="pe")
        detector.full_file_name.put(self.frame)
        return self.wrapped(count([detector], num), recipe="xdi-unsigned")

    def in_request(self, plan: Any) -> str:
        """Return the hash of the recipe of a plan's only frame, as the server reports it."""
        in_start = self.in_start(plan)
        (report,) = self.converter.client.reports_of_run(self.starts[-1]["uid"])
        assert (report.outcome, report.recipe_hash) == ("converted", in_start), report.reason
        return in_start

    @property
    def plan_options(self) -> dict[str, Any]:
        return {"spool": str(self.folder / "spool.sqlite"), "timeout": 20.0}


@pytest.fixture
def bench(run_engine: RunEngine, address: str, folder: Path) -> Iterator[Bench]:
    bench = Bench(run_engine, address, folder)
    yield bench
    bench.close()


def preprocessor(bench: Bench, given: Any) -> str:
    return bench.in_start(ConversionPreprocessor(bench.converter, recipe=given)(count([])))


def wrapper(bench: Bench, given: Any) -> str:
    return bench.in_start(bench.wrapped(count([]), recipe=given))


def decorator(bench: Bench, given: Any) -> str:
    return bench.in_start(conversion_decorator(bench.converter, recipe=given)(partial(count, []))())


def configure(bench: Bench, given: Any) -> str:
    bench.converter.configure({"recipe": given})
    return bench.in_start(bench.wrapped(count([])))


def configure_plan(bench: Bench, given: Any) -> str:
    return bench.in_start(bps.configure(bench.converter, {"recipe": given}), bench.wrapped(count([])))


def move(bench: Bench, given: Any) -> str:
    return bench.in_start(bps.mv(bench.converter.recipe, given), bench.wrapped(count([])))


def abs_set(bench: Bench, given: Any) -> str:
    return bench.in_start(bps.abs_set(bench.converter.recipe, given, wait=True), bench.wrapped(count([])))


def metadata(bench: Bench, given: Any) -> str:
    return bench.in_start(bench.wrapped(count([], md={"conversion": {"recipe": given, "note": "as last week"}})))


def bare_metadata(bench: Bench, given: Any) -> str:
    return bench.in_start(bench.wrapped(count([], md={"conversion": given})))


def metadata_of_conversion_plan(bench: Bench, given: Any) -> str:
    md = {"conversion": {"recipe": given}}
    return bench.in_request(convert_files(bench.converter, [bench.frame], md=md, **bench.plan_options))


def files(bench: Bench, given: Any) -> str:
    return bench.in_request(convert_files(bench.converter, [bench.frame], recipe=given, **bench.plan_options))


def files_of_folder(bench: Bench, given: Any) -> str:
    raw = str(bench.folder / "raw")
    return bench.in_request(convert_folder(bench.converter, raw, recipe=given, **bench.plan_options))


class Catalogued:
    """A run that brings its documents, as the clients of some catalogues do."""

    def __init__(self, frame: str) -> None:
        run = ComposedRun(lambda _name, _document: None)
        run.stream(pe={"full_file_name": NAME})
        run.event(pe_full_file_name=frame)
        run.stop()
        self._documents = run.recorder.documents

    def documents(self) -> Any:
        yield from self._documents


def reprocess(bench: Bench, given: Any) -> str:
    run: Any = Catalogued(bench.frame)
    bench.in_request(reprocess_run(bench.converter, run, recipe=given, **bench.plan_options))
    recipe = Recipe.parse(bench.starts[-1]["conversion"]["recipe"])
    return recipe.model_copy(update={"output": NewFile()}).hash  # its outputs are numbered


def request(bench: Bench, given: Any) -> str:
    answer = submit(bench.proxy, {"source": bench.frame, "run_uid": "run", "recipe": as_json(given)})
    if answer["refused"]:
        raise RefusedError(answer["refused"][0]["reason"])
    recipe_hash: str = reports(bench.proxy, answer)[0]["recipe_hash"]
    return recipe_hash


def engine_call(bench: Bench, given: Any) -> str:
    return bench.of_callback(bench.scan(), conversion={"recipe": given})


def bare_engine_call(bench: Bench, given: Any) -> str:
    return bench.of_callback(bench.scan(), conversion=given)


def queue_meta(bench: Bench, given: Any) -> str:
    """Run an item of bluesky-queueserver as its worker does: its `meta`, or several, become metadata of the call."""
    names = {"scan": queueable(bench.scan)}
    plans, devices, _, _ = existing_plans_and_devices_from_nspace(nspace=names)
    item = {
        "name": "scan",
        "user_group": "primary",
        "meta": [{"conversion": {"recipe": as_json(given)}}, {"conversion": "esperanto"}],
    }
    prepared = prepare_plan(
        item,
        plans_in_nspace=names,
        devices_in_nspace={},
        allowed_plans={"primary": plans},
        allowed_devices={"primary": devices},
    )
    return bench.of_callback(prepared["callable"](*prepared["args"], **prepared["kwargs"]), **prepared["meta"])


def command(bench: Bench, given: Any) -> str:
    bench.proxy.SetRecipe(as_text(given))
    return Recipe.model_validate_json(bench.proxy.Recipe).hash


OF_RUNS = [
    preprocessor,
    wrapper,
    decorator,
    configure,
    configure_plan,
    move,
    abs_set,
    metadata,
    bare_metadata,
    metadata_of_conversion_plan,
    files,
    files_of_folder,
    reprocess,
    request,
    engine_call,
    bare_engine_call,
    queue_meta,
]
PLACES = [*OF_RUNS, command]
Place = Callable[[Bench, Any], str]


@pytest.mark.parametrize("place", PLACES)
def test_every_spelling_is_the_same_recipe(place: Place, bench: Bench) -> None:
    found = {name: place(bench, given) for name, (given, _) in SPELLINGS.items()}
    assert found == {name: recipe.hash for name, (_, recipe) in SPELLINGS.items()}


def refusals(place: Callable[[Any], str], wrong: Mapping[str, Any]) -> dict[str, str]:
    """Return the part of each error from which on it is that of `Recipe.parse`; the whole if it is another one."""
    found = {}
    for name, given in wrong.items():
        with pytest.raises((ValueError, FailedStatus, RefusedError, tango.DevFailed)) as caught:
            place(given)
        text = caught.value.args[0].desc if isinstance(caught.value, tango.DevFailed) else str(caught.value)
        found[name] = refusal_of(given) if refusal_of(given) in text else text
    return found


@pytest.mark.long
@pytest.mark.parametrize("place", PLACES)
def test_every_wrong_one_is_refused_in_the_same_words(place: Place, bench: Bench) -> None:
    wrong = {**WRONG, "in place": UNSAFE} if place in OF_RUNS else WRONG
    assert refusals(partial(place, bench), wrong) == {name: refusal_of(given) for name, given in wrong.items()}
    if place is not request:
        assert bench.starts == [], "no run was opened"


def test_frames_with_a_refused_recipe_count_as_failed_in_their_run(bench: Bench) -> None:
    wrong = [*WRONG.values(), [], "nonsense", UNSAFE]
    frames = [
        {"source": bench.frame, "run_uid": "refused", "key": f"refused/{number}", "seq_num": number, "recipe": recipe}
        for number, recipe in enumerate(wrong, start=1)
    ]
    answer = submit(bench.proxy, *frames)
    assert answer["jobs"] == []
    for each, recipe in zip(answer["refused"], wrong, strict=True):
        assert refusal_of(recipe) in each["reason"]
    statistics = bench.converter.client.run_statistics("refused")
    assert (statistics.submitted, statistics.failed, statistics.pending) == (len(wrong), len(wrong), 0)
    found = list(bench.converter.client.reports_of_run("refused"))
    assert [(report.seq_num, report.outcome) for report in found] == [(n, "failed") for n in range(1, len(wrong) + 1)]
    assert [report.reason for report in found] == [each["reason"] for each in answer["refused"]]


def toml(given: Any) -> str:
    if isinstance(given, dict):
        return f"{{{', '.join(f'{key} = {toml(value)}' for key, value in given.items() if value is not None)}}}"
    return json.dumps(given)


def served(folder: Path, *options: str, **configuration: Any) -> str:
    """Return the hash of the recipe that `petif serve` would have with these options."""
    own = ["--root", str(folder), "--state-dir", str(folder / "other state")]
    result = CliRunner().invoke(serve, ["--check", *own, *options])
    if result.exit_code:
        raise RefusedError(result.output)
    return Configuration({"read_roots": [folder]}, **configuration).settings({}, "petif/converter/1").recipe.hash


def settings_file(folder: Path, given: Any) -> str:
    path = folder / "petif.toml"
    path.write_text(f"recipe = {toml(as_json(given))}\n")
    return served(folder, "--config", str(path), file=path)


def command_line(folder: Path, given: Any) -> str:
    word = f"recipe={as_text(given)}"
    return served(folder, "--set", word, options=from_lines(as_lines((assignment(word),))))


@pytest.mark.parametrize("place", [settings_file, command_line])
def test_configuration_takes_every_spelling_and_refuses_as_the_others(
    place: Callable[[Path, Any], str], tmp_path: Path
) -> None:
    found = {name: place(tmp_path, given) for name, (given, _) in SPELLINGS.items()}
    assert found == {name: recipe.hash for name, (_, recipe) in SPELLINGS.items()}
    assert refusals(partial(place, tmp_path), WRONG) == {name: refusal_of(given) for name, given in WRONG.items()}


@pytest.mark.long
@pytest.mark.parametrize("deployment", ["database"])
def test_property_takes_every_spelling_and_refuses_as_the_others(
    server: RegisteredServer, tango_database: TangoDatabase
) -> None:
    proxy = tango.DeviceProxy(server.address)

    def configured(given: Any) -> str:
        tango_database.client.put_device_property(server.device, {"recipe": [as_text(given)]})
        proxy.Init()
        if proxy.state() == tango.DevState.FAULT:
            raise RefusedError(proxy.status())
        return Recipe.model_validate_json(proxy.Recipe).hash

    assert refusals(configured, WRONG) == {name: refusal_of(given) for name, given in WRONG.items()}
    found = {name: configured(given) for name, (given, _) in SPELLINGS.items()}
    assert found == {name: recipe.hash for name, (_, recipe) in SPELLINGS.items()}


def test_queue_takes_every_spelling_that_json_can_carry(bench: Bench) -> None:
    names = {"converter": bench.converter, "convert_files": convert_files}
    plans, devices, _, _ = existing_plans_and_devices_from_nspace(nspace=names)
    for given, _ in SPELLINGS.values():
        item = {"name": "convert_files", "args": ["converter", [bench.frame]], "kwargs": {"recipe": as_json(given)}}
        assert validate_plan(item, allowed_plans=plans, allowed_devices=devices) == (True, "")
