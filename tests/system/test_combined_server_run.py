"""Runs whose frames a real server combines: pixels, statistics, streams and catalogue agree with the files."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import numpy as np
import pytest
import tifffile
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted

from petif_bluesky import Attached, attach
from petif_bluesky.sim import SimulatedPerkinElmer
from tango_server.client.local_server import LocalServer
from tango_server.messages import FrameReport, GroupReport
from tango_server.recipe import Recipe
from tests.system.waiting import until
from tests.unit.burst import Burst, paused_after
from tests.unit.documents import Recorder

pytestmark = pytest.mark.usefixtures("own_state")

Image = np.ndarray[Any, Any]
Groups = list[list[Path]]


def recipe(of: Any, method: str = "sum", preset: str = "xdi", **fields: Any) -> Recipe:
    combine = {"of": of, "method": method, **fields.pop("combine", {})}
    return Recipe.preset(preset, combine=combine, **fields)


def summed(images: Sequence[Image]) -> Image:
    return np.trunc(np.sum(images, axis=0, dtype=np.float64)).astype(np.int32)


class Session:
    """A RunEngine with a converter and a catalogue."""

    def __init__(self, engine: RunEngine, attached: Attached, root: Path, client: Any) -> None:
        self.engine, self.attached, self.root, self.client = engine, attached, root, client
        self.recorder = Recorder()
        engine.subscribe(self.recorder)

    def run(self, plan: Any, used: Recipe, in_pause: Callable[[], object] | None = None) -> str:
        """Run a plan, which is paused once if `in_pause` is given; return the uid when all is in the catalogue."""
        md = {"conversion": used.model_dump(mode="json")}
        if in_pause is None:
            (uid,) = self.engine(plan, **md)
        else:
            with pytest.raises(RunEngineInterrupted):
                self.engine(plan, **md)
            in_pause()
            (uid,) = self.engine.resume()
        assert self.attached.wait(30.0)
        return str(uid)

    def files(self, uid: str, stream: str = "primary") -> list[Path]:
        return [Path(event["data"]["pe_full_file_name"]) for event in self.recorder.stream(stream, uid)]

    def reports(self, uid: str) -> tuple[list[GroupReport], list[FrameReport]]:
        found = self.attached.converter.client.reports_of_run(uid)
        groups = [each for each in found if isinstance(each, GroupReport)]
        return groups, [each for each in found if not isinstance(each, GroupReport)]

    def check(
        self,
        uid: str,
        expected: Groups,
        combined: Callable[[Sequence[Image]], Image] = summed,
        *,
        superseded: Iterable[Path] = (),
        failed: Iterable[Path] = (),
        corrected: Callable[[Path], Image] = tifffile.imread,
    ) -> None:
        """Compare outputs, reports, statistics, streams and catalogue with the raw files of the events that count."""
        self.recorder.check()
        groups, frames = self.reports(uid)
        made = {tuple(each.source for each in report.members): report for report in groups if report.output}
        assert set(made) == {tuple(map(str, group)) for group in expected}
        images = {}
        for group in expected:
            report = made[tuple(map(str, group))]
            assert {each.outcome for each in report.members} == {"grouped"}
            images[str(report.output)] = combined([corrected(path) for path in group])
            np.testing.assert_array_equal(tifffile.imread(str(report.output)), images[str(report.output)])
        outcomes = {name: set() for name in ("grouped", "superseded", "failed")}
        for frame in frames:
            outcomes[frame.outcome].add(Path(frame.source))
        grouped = {path for group in expected for path in group}
        assert outcomes == {"grouped": grouped, "superseded": set(superseded), "failed": set(failed)}
        self._check_numbers(uid, {name: len(paths) for name, paths in outcomes.items()}, sorted(images))
        self._check_streams(uid, images)

    def _check_numbers(self, uid: str, counts: dict[str, int], outputs: list[str]) -> None:
        """The statistics are those of the files, on the server, in the run and in the catalogue."""
        on_disk = sorted(str(path) for path in (self.root / "processed").rglob("*.tif"))
        assert outputs == on_disk, "no output is left over"
        expected = {
            **counts, "submitted": sum(counts.values()), "groups": len(outputs), "pending": 0, "converted": 0,
        }  # fmt: skip
        statistics = self.attached.converter.client.run_statistics(uid)
        assert {name: getattr(statistics, name) for name in expected} == expected
        assert statistics.bytes_out == sum(Path(path).stat().st_size for path in outputs)
        assert self.client[uid].metadata["conversion"].items() >= expected.items()
        event = self.recorder.stream("conversion", uid)[-1]
        numbers = {name.removeprefix("converter_"): value for name, value in event["data"].items()}
        assert {name: numbers[name] for name in expected if name in numbers} == {
            name: count for name, count in expected.items() if name in numbers
        }
        assert numbers["drained"]
        read = event["timestamps"]["converter_drained"]
        assert all(Path(path).stat().st_mtime <= read for path in outputs), "drained before the last output was there"

    def _check_streams(self, uid: str, images: dict[str, Image]) -> None:
        rows = [event["data"] for event in self.recorder.stream("converted", uid)]
        assert sorted(row["converter_output"] for row in rows) == sorted(images), "one row a group"
        catalogued = self.client[uid]["converted"]["converter_image"].read()[:, 0]
        np.testing.assert_array_equal(catalogued, [images[row["converter_output"]] for row in rows])


@pytest.fixture
def session(run_engine: RunEngine, server: LocalServer, root: Path, client: Any) -> Iterator[Session]:
    with attach(run_engine, server.address, tiled=client) as attached:
        yield Session(run_engine, attached, root, client)


@pytest.fixture
def detector(root: Path) -> SimulatedPerkinElmer:
    return SimulatedPerkinElmer(
        name="pe", directory=root / "raw", shape=(32, 48), exposure_time=0.01, pixel_type="uint16"
    )


@pytest.fixture
def burst(root: Path) -> Burst:
    return Burst(root / "raw", 3, name="burst")


def of_burst(root: Path, *events: int) -> Groups:
    """The three files of each of these events, counted from 0 in the order in which they were taken."""
    return [
        [root / "raw" / f"burst_{number:06d}.tiff" for number in range(3 * event, 3 * event + 3)] for event in events
    ]


def test_three_frames_of_an_event_become_their_sum(session: Session, burst: Burst, root: Path) -> None:
    uid = session.run(bp.count([burst], num=3), recipe("event"))
    session.check(uid, of_burst(root, 0, 1, 2))


def test_event_that_is_taken_again_replaces_the_earlier_sum(session: Session, burst: Burst, root: Path) -> None:
    """The earlier sum was written when the event was taken again."""

    def sum_is_written() -> None:
        until((root / "processed" / "burst_000003.tif").exists, "the sum of the second event is written")

    uid = session.run(bp.count([burst], num=3, per_shot=paused_after(2)), recipe("event"), sum_is_written)
    (earlier,) = of_burst(root, 1)
    session.check(uid, of_burst(root, 0, 2, 3), superseded=earlier)
