"""A run with combined frames in a real catalogue, and converted again from there; the server is a stand-in."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import numpy as np
import pytest
import tifffile
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted

from petif_bluesky import PETifConverter, attach
from petif_bluesky.attachment import Attached
from petif_bluesky.plans import reprocess_run
from petif_bluesky.testing.fake_server import FakeServer
from petif_bluesky.testing.reports import really_combined
from tango_server.recipe import Recipe
from tests.unit.burst import Burst, paused_after

pytestmark = pytest.mark.usefixtures("own_state")


def recipe(of: Any) -> Recipe:
    return Recipe.preset("xdi", combine={"of": of, "method": "sum"})


@pytest.fixture
def attached(run_engine: RunEngine, client: Any, tmp_path: Path) -> Iterator[Attached]:
    fake = FakeServer()
    fake.report_group = really_combined
    converter = PETifConverter(fake.address, name="converter", poller=fake, drain_timeout=20.0)
    with attach(run_engine, converter, recipe=recipe("event"), tiled=client, spool=tmp_path / "spool.sqlite") as found:
        yield found
    converter.destroy()


def sums(raw: Path, *groups: range) -> list[Any]:
    """The sums of these frames."""
    return [
        np.trunc(sum(tifffile.imread(raw / f"burst_{number:06d}.tiff").astype(float) for number in group))
        for group in groups
    ]


@pytest.mark.parametrize(
    ("of", "groups"),
    [
        ("event", [range(3), range(6, 9), range(9, 12)]),
        pytest.param("run", [[*range(3), *range(6, 12)]], marks=pytest.mark.long),
        pytest.param({"every": 6}, [[0, 1, 2, 6, 7, 8], range(9, 12)], marks=pytest.mark.long),
    ],
)
def test_catalogued_run_is_combined_again(
    attached: Attached, run_engine: RunEngine, client: Any, tmp_path: Path, of: Any, groups: list[Any]
) -> None:
    """The second event was taken again."""
    burst = Burst(tmp_path / "raw", 3, name="burst")
    with pytest.raises(RunEngineInterrupted):
        run_engine(bp.count([burst], num=3, per_shot=paused_after(2)))
    (uid,) = run_engine.resume()
    assert attached.wait(20.0)
    run = client[uid]
    assert run.metadata["conversion"].items() >= {"grouped": 9, "superseded": 3, "groups": 3, "pending": 0}.items()
    np.testing.assert_array_equal(
        run["converted"]["converter_image"].read()[:, 0], sums(tmp_path / "raw", range(3), range(6, 9), range(9, 12))
    )

    (again,) = run_engine(reprocess_run(attached.converter, uid, recipe=recipe(of).model_dump(), catalogue=client))
    assert attached.wait(20.0)
    run = client[again]
    numbers = run.metadata["conversion"]
    assert numbers.items() >= {"submitted": 12, "grouped": 9, "superseded": 3, "groups": len(groups)}.items()
    np.testing.assert_array_equal(run["converted"]["converter_image"].read()[:, 0], sums(tmp_path / "raw", *groups))
