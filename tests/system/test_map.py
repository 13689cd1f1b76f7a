"""Maps with a real server: a snake scan with a missing point and a damaged frame, and `petif map` afterwards."""

import csv
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
import pytest
import tifffile
from bluesky import RunEngine
from click.testing import CliRunner, Result
from ophyd.sim import SynAxis

from petif_bluesky import Attached, attach
from petif_bluesky.commands.map import make_map
from petif_bluesky.plans import reprocess_run
from petif_bluesky.sim import SimulatedPerkinElmer
from tango_server.client.client import Client
from tango_server.client.local_server import LocalServer
from tango_server.monitor.poller import Watch
from tests.system.waiting import until
from tests.tiled_server import tiled_writer
from tests.unit.documents import ComposedRun

pytestmark = pytest.mark.usefixtures("own_state")

SUMMED = {"preset": "xdi", "combine": {"of": {"by": {"sample_x": 0.005, "sample_y": 0.25}}, "method": "sum"}}
Call = Callable[..., Result]


@pytest.fixture
def call(server: LocalServer, tiled: Any) -> Call:
    def call(run_uid: str, *options: str) -> Result:
        words = [run_uid, "--tiled", tiled.uri, "--device", server.address, *options]
        return CliRunner().invoke(make_map, words, env={"COLUMNS": "200"}, catch_exceptions=False)

    return call


@pytest.fixture
def attached(run_engine: RunEngine, server: LocalServer, client: Any) -> Iterator[Attached]:
    with attach(run_engine, server.address, recipe=SUMMED, tiled=client) as attached:
        yield attached


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def three_exposures(missing: int, damaged: int) -> Any:
    """Three events at each point, but none at the point `missing`, and the second file of `damaged` cut."""
    numbers = iter(range(100))

    def per_step(detectors: Any, step: Any, pos_cache: Any) -> Any:
        (detector,) = detectors
        yield from bps.move_per_step(step, pos_cache)
        number = next(numbers)
        for exposure in range(3):
            if number != missing:
                yield from bps.trigger_and_read([detector, *step])
            if (number, exposure) == (damaged, 1):
                file = Path(detector.full_file_name.get())
                file.write_bytes(file.read_bytes()[:1000])

    return per_step


def test_snake_scan_becomes_a_whole_map(
    attached: Attached, run_engine: RunEngine, root: Path, client: Any, call: Call
) -> None:
    detector = SimulatedPerkinElmer(name="pe", directory=root / "raw", shape=(32, 48), exposure_time=0.01)
    slow, fast = SynAxis(name="sample_y"), SynAxis(name="sample_x")
    plan = bp.grid_scan(
        [detector], slow, 0, 1, 2, fast, 0, 0.02, 3, snake_axes=True, per_step=three_exposures(missing=2, damaged=4)
    )  # fmt: skip
    (uid,) = run_engine(plan)
    assert attached.wait(30.0)
    numbers = client[uid].metadata["conversion"]
    wanted = {"submitted": 17, "grouped": 12, "groups": 4, "groups_failed": 1, "placeholders": 2, "pending": 0}
    assert numbers.items() >= wanted.items()

    (folder,) = (root / "processed").glob(f"*_{uid[:8]}")
    files = sorted(folder.glob("*.tif"))
    assert [file.stem[-5:] for file in files] == [f"{point:05d}" for point in range(6)]
    raw = sorted((root / "raw").glob("*.tif"))
    for point, begin in {0: 0, 1: 3, 5: 6, 3: 12}.items():  # the frames of point 4, the fifth that is scanned, failed
        expected = sum(tifffile.imread(path).astype(np.float64) for path in raw[begin : begin + 3])
        np.testing.assert_array_equal(tifffile.imread(files[point]), np.trunc(expected).astype(np.int32))
    assert not tifffile.imread(files[2]).any()
    assert not tifffile.imread(files[4]).any()

    until((folder / "map.csv").exists, "the table is written")
    table = rows_of(folder / "map.csv")
    assert [row["outcome"] for row in table] == [
        "converted", "converted", "placeholder", "converted", "placeholder", "converted",
    ]  # fmt: skip
    assert [(float(row["sample_y"]), float(row["sample_x"])) for row in table] == [
        (0.0, 0.0), (0.0, 0.01), (0.0, 0.02), (1.0, 0.0), (1.0, 0.01), (1.0, 0.02),
    ]  # fmt: skip
    total = sum(tifffile.imread(path).astype(np.float64).sum() for path in raw[:3])
    assert float(table[0]["total"]) == pytest.approx(total, rel=1e-6)

    result = call(uid)
    assert result.exit_code == 0, result.output
    assert "\npoint 2 of the map (sample_y = 0, sample_x = 0.02): no frame came" in result.stdout
    assert "\npoint 4 of the map (sample_y = 1, sample_x = 0.01): its frames failed: " in result.stdout
    assert sorted(folder.glob("*.tif")) == files
    assert rows_of(folder / "map.csv") == table

    again = {"preset": "xdi", "rotation": 90, "combine": SUMMED["combine"]}
    (new,) = run_engine(reprocess_run(attached.converter, uid, recipe=again, catalogue=client))
    (other,) = (root / "processed").glob(f"*_{new[:8]}")
    turned = sorted(other.glob("*.tif"))
    assert len(turned) == 6
    for before, after in zip(files, turned, strict=True):
        np.testing.assert_array_equal(np.rot90(tifffile.imread(before)), tifffile.imread(after))

    shutil.copy(raw[9], raw[10])  # the damaged frame is repaired
    server = attached.converter.client
    assert server.retry_failed() >= 1
    until(lambda: server.run_statistics(uid).groups == 5, "the sum of the repaired frame is written")
    expected = sum(tifffile.imread(path).astype(np.float64) for path in raw[9:12])
    np.testing.assert_array_equal(tifffile.imread(files[4]), np.trunc(expected).astype(np.int32))
    assert call(uid).exit_code == 0
    assert rows_of(folder / "map.csv")[4]["outcome"] == "converted"


def submitted_map(catalogue: Any, server: LocalServer, put: Callable[..., Path], **start: Any) -> str:
    """A run of 2 x 2 points in the catalogue, whose callback has sent the points 0, 1 (damaged) and 3 only."""
    run = ComposedRun(tiled_writer(catalogue), conversion={"recipe": {"preset": "xdi", "map": {}}}, **start)
    run.stop()
    requests = []
    for point, name in ((0, "qxrd_f32_64.tif"), (1, "not_a_tiff.tif"), (3, "qxrd_f32_64.tif")):
        place = {"point": point, "shape": [2, 2], "motors": ["y", "x"], "positions": [point // 2, point % 2]}
        requests.append({
            "source": str(put(name, f"map-{point}.tif")), "run_uid": run.uid, "stream": "primary",
            "recipe": {"preset": "xdi", "map": {}}, "map": {**place, "name": "map"},
        })  # fmt: skip
    Client(server.address).submit(requests)
    return run.uid


GRID = {"plan_name": "grid_scan", "motors": ["y", "x"], "shape": [2, 2], "extents": [[0, 1], [0, 1]]}


def test_map_of_a_run_that_is_over_is_completed(
    client: Any, server: LocalServer, put: Callable[..., Path], call: Call, root: Path, tmp_path: Path
) -> None:
    uid = submitted_map(client, server, put, **GRID)
    listed = call(uid, "--no-placeholders", "--output", str(tmp_path / "listed.csv"))
    assert listed.exit_code == 1, listed.output
    assert [row["outcome"] for row in rows_of(tmp_path / "listed.csv")] == [
        "converted", "failed", "missing", "converted",
    ]  # fmt: skip
    result = call(uid)
    assert result.exit_code == 0, result.output
    (folder,) = (root / "processed").glob(f"map_{uid[:8]}")
    files = sorted(folder.glob("*.tif"))
    assert [file.name for file in files] == [f"map_{point:05d}.tif" for point in range(4)]
    assert [tifffile.imread(file).shape for file in files] == [(64, 64)] * 4
    assert [tifffile.imread(file).any() for file in files] == [True, False, False, True]
    assert [row["outcome"] for row in rows_of(folder / "map.csv")] == [
        "converted", "placeholder", "placeholder", "converted",
    ]  # fmt: skip
    assert call(uid).exit_code == 0
    assert sorted(folder.glob("*.tif")) == files

    with closing(Watch(server.address, interval=0.05)) as watch:
        until(lambda: watch.observed.map is not None and len(watch.observed.map.cells) == 2, "the monitor has the map")
        assert watch.observed.map is not None
        total = tifffile.imread(root / "raw" / "map-0.tif").astype(np.float64).sum()
        np.testing.assert_allclose(watch.observed.map.image("total"), [[total, np.nan], [np.nan, total]], rtol=1e-6)


@pytest.mark.parametrize(
    ("start", "why"),
    [
        ({"plan_name": "list_scan", "motors": ["y", "x"]}, "the points of list_scan are no grid"),
        (GRID, "its frames were not converted to a map"),
    ],
)
def test_run_without_a_map_says_why(
    start: Any, why: str, client: Any, server: LocalServer, put: Callable[..., Path], call: Call
) -> None:
    run = ComposedRun(tiled_writer(client), conversion={"recipe": "xdi"}, **start)
    run.stop()
    Client(server.address).submit([{"source": str(put("qxrd_f32_64.tif", "plain.tif")), "run_uid": run.uid}])
    result = call(run.uid)
    assert result.exit_code == 2
    assert why in result.stderr
