"""What the tests of the bluesky side share; bluesky is imported only by those who ask for it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.documents import Recorder

if TYPE_CHECKING:
    from bluesky import RunEngine

    from petif_bluesky import ConversionCallback, PETifConverter
    from petif_bluesky.sim import SimulatedPerkinElmer
    from petif_bluesky.testing.fake_link import FakeLink

SHAPE = (32, 48)


@pytest.fixture
def run_engine() -> Iterator["RunEngine"]:
    from bluesky import RunEngine

    engine = RunEngine({}, context_managers=[])
    yield engine
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join(timeout=5)
    engine.loop.close()


@pytest.fixture
def recorder(run_engine: "RunEngine") -> Recorder:
    """The documents of all runs of `run_engine`."""
    recorder = Recorder()
    run_engine.subscribe(recorder)
    return recorder


@pytest.fixture
def make_detector(tmp_path: Path) -> Iterator[Callable[..., "SimulatedPerkinElmer"]]:
    from petif_bluesky.sim import SimulatedPerkinElmer

    made: list[SimulatedPerkinElmer] = []

    def make(name: str = "pe", **changes: Any) -> SimulatedPerkinElmer:
        options = {"directory": tmp_path / "raw" / "sample", "shape": SHAPE, "exposure_time": 0.0}
        made.append(SimulatedPerkinElmer(name=name, **{**options, **changes}))
        return made[-1]

    yield make
    for detector in made:
        detector.destroy()


@pytest.fixture
def link() -> "FakeLink":
    from petif_bluesky.testing.fake_link import FakeLink

    return FakeLink()


@pytest.fixture
def converter(link: "FakeLink") -> "PETifConverter":
    from petif_bluesky import PETifConverter

    return PETifConverter(link.address, name="converter", link=link, drain_timeout=20.0)


@pytest.fixture
def callback(converter: "PETifConverter", tmp_path: Path) -> Iterator["ConversionCallback"]:
    from petif_bluesky import ConversionCallback

    callback = ConversionCallback(converter, spool=tmp_path / "spool.sqlite")
    yield callback
    callback.close()
