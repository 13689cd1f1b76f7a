"""What one Init brings up and takes down, without Tango."""

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tango_server import application
from tango_server.application import Application, NotServingError, NoTurnError
from tango_server.jobs import startup
from tango_server.jobs.state_machine.snapshot import Snapshot
from tango_server.messages import ReportsQuery, SubmitQuery
from tango_server.recipe import Recipe
from tango_server.settings import ConfigurationError, Settings
from tests.unit.held_executor import HeldExecutor

PATIENCE = 30.0


@pytest.fixture
def life(monkeypatch: pytest.MonkeyPatch) -> Iterator[Application]:
    """An application whose tasks nobody runs."""
    monkeypatch.setattr(startup, "make_executor", lambda *_, **__: HeldExecutor())
    life = Application()
    yield life
    life.close()


def settings_in(folder: Path, **changes: object) -> Settings:
    return Settings.model_validate({"read_roots": [str(folder)], "state_dir": str(folder / "state"), **changes})


def test_it_serves_with_the_settings_while_it_is_open(life: Application, tmp_path: Path) -> None:
    assert (life.numbers, life.workers, life.recipe, life.state()[0]) == (Snapshot(), 0, None, "ON")
    with pytest.raises(NotServingError, match="Try again"):
        _ = life.service
    changed = threading.Event()
    recipe = Recipe.preset("xdi", rotation=180)
    life.open(lambda: settings_in(tmp_path.resolve(), numworkers=3, recipe=recipe), logging.NullHandler(), changed.set)
    assert (life.workers, life.recipe, life.state()[0]) == (3, recipe, "ON")
    life.service.pause(paused=True)
    assert changed.wait(PATIENCE)
    life.close()
    assert life.recipe is None
    with pytest.raises(NotServingError):
        _ = life.service


def test_without_workers_it_is_a_fault_that_accepts_frames(
    life: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    life.open(lambda: settings_in(tmp_path.resolve()), logging.NullHandler(), lambda: None)
    monkeypatch.setattr(HeldExecutor, "problem", "Cannot start worker processes. Check the log.")
    assert life.state() == ("FAULT", "Cannot start worker processes. Check the log.")
    answer = life.service.intake.submit(SubmitQuery(requests=[{"source": str(tmp_path.resolve() / "raw" / "a.tif")}]))
    assert len(answer.jobs) == 1
    monkeypatch.setattr(HeldExecutor, "problem", "")
    assert life.state()[0] != "FAULT"


@pytest.mark.parametrize(
    ("kind", "named"), [("wrong", "numworkers"), ("unreadable", "petif.toml"), ("ledger", "ledger")]
)
def test_wrong_settings_are_a_fault_with_the_remedy(
    kind: str, named: str, life: Application, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def settings() -> Settings:
        match kind:
            case "wrong":
                return settings_in(tmp_path, numworkers=-1)
            case "unreadable":
                raise ConfigurationError("petif.toml: it can't be read. Correct it.")
            case _:
                (tmp_path / "state" / "ledger.sqlite").mkdir(parents=True)
                return settings_in(tmp_path.resolve())

    life.open(settings, logging.NullHandler(), lambda: None)
    word, status = life.state()
    assert word == "FAULT"
    assert status.endswith("call Init.")
    assert named in status
    logged = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert status.rstrip(".") in " ".join(logged)
    with pytest.raises(NotServingError, match="Init"):
        _ = life.service


def test_long_calls_are_few_at_a_time_and_the_end_waits_for_them(
    life: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application, "_TURN_TIMEOUT", 0.01)
    life.open(lambda: settings_in(tmp_path.resolve()), logging.NullHandler(), lambda: None)
    with ExitStack() as calls:
        for _ in range(3):
            service = calls.enter_context(life.in_turn())
        with pytest.raises(NoTurnError, match="Call again"), life.in_turn():
            pass
        ending = threading.Thread(target=life.close)
        ending.start()
        ending.join(0.05)
        assert ending.is_alive()
        assert service.reports(ReportsQuery(latest=True)).reports == [], "the ledger is still open"
    ending.join(PATIENCE)
    assert not ending.is_alive()
    with pytest.raises(NoTurnError), life.in_turn():
        pass
