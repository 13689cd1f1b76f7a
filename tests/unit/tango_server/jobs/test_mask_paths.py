"""The mask of a recipe: a path as that of a frame, from the request to the pixels."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tango_server.conversion.errors import OutsideRootsError, PathError
from tango_server.conversion.esperanto.reading import read_esperanto
from tango_server.conversion.files.roots import Roots
from tango_server.jobs.executors.worker import run
from tango_server.jobs.runner import JobRunner
from tango_server.jobs.startup import open_database
from tango_server.messages import FrameReport, ReportsQuery, SubmitAnswer, SubmitQuery
from tango_server.recipe import Recipe
from tango_server.settings import Settings
from tests.unit.held_executor import Bell, HeldExecutor

FRAME = np.full((256, 256), 7, np.int32)
GEOMETRY = {"wavelength": 0.29, "distance": 300.0, "pixel_size": 0.2, "beam_center": (30.0, 31.5), "exposure": 0.5}


def recipe(mask: Path | str) -> Recipe:
    return Recipe.preset("esperanto", esperanto={**GEOMETRY, "omega": 1.5, "mask": str(mask)})


class Server:
    """A running service with frames below one root and masks below another; `state` lies below the second."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.masks, self.state = base / "masks", base / "masks" / "state"
        for folder in (base / "data" / "raw", self.state, base / "outside"):
            folder.mkdir(parents=True)
        self.source = base / "data" / "raw" / "pat_1.tif"
        tifffile.imwrite(self.source, FRAME)
        self.executor, self.bell = HeldExecutor(), Bell()
        settings = Settings(
            read_roots=(base / "data", self.masks),
            write_roots=(base / "data",),
            state_dir=self.state,
            numworkers=1,
            sidecar_timeout=0.0,
            settle_time=0.0,
            path_maps=("M:\\ -> " + str(self.masks),),
        )
        self.runner = JobRunner(settings, open_database(settings), self.executor, self.bell.ring)

    def mask(self, path: Path, corner: int) -> Path:
        marked = np.zeros(FRAME.shape, np.uint8)
        marked[:corner, :corner] = 1
        tifffile.imwrite(path, marked)
        return path

    def submit(self, mask: Path | str, **fields: Any) -> SubmitAnswer:
        request = {"source": str(self.source), "recipe": recipe(mask).model_dump(mode="json"), **fields}
        return self.runner.intake.submit(SubmitQuery(requests=[request]))

    def reason(self, mask: Path | str) -> str:
        """Return why a request is refused, without the path that it named."""
        answer = self.submit(mask)
        assert not answer.jobs, mask
        return answer.refused[0].reason.replace(str(mask), "MASK")

    def report(self, answer: SubmitAnswer) -> FrameReport:
        (job,) = answer.jobs
        self.executor.end_next(run)
        self.bell.wait_for(lambda: self.runner.snapshot.queue_length == 0, "all is reported")
        return self.runner.reports(ReportsQuery(job_ids=[job.job_id])).reports[0]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path.resolve())
    yield running
    running.runner.close()


def marked(report: FrameReport) -> int:
    assert report.outcome == "converted", report.reason
    image = read_esperanto(Path(report.output or ""))[1]
    np.testing.assert_array_equal(np.unique(image), [-1, 7])
    return int(np.count_nonzero(image == -1))


@pytest.mark.parametrize("way", [str, lambda path: f"M:\\{path.name}"])
def test_masks_of_any_root_and_of_the_detector_pc_are_taken(server: Server, way: Callable[[Path], str]) -> None:
    mask = way(server.mask(server.masks / "mask.tif", 5))
    report = server.report(server.submit(mask))
    assert marked(report) == 25
    assert report.recipe_hash == recipe(mask).hash


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_the_mask_is_that_of_when_the_frame_was_accepted(server: Server) -> None:
    link = server.masks / "current.tif"
    link.symlink_to(server.mask(server.masks / "first.tif", 5))
    forged = str(server.mask(server.masks / "forged.tif", 9))
    answer = server.submit(link, metadata={"recipe.mask": forged})
    link.unlink()
    link.symlink_to(server.mask(server.masks / "second.tif", 7))
    assert marked(server.report(answer)) == 25


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_masks_outside_of_the_roots_are_refused_at_the_door(server: Server) -> None:
    there, absent = server.mask(server.base / "outside" / "mask.tif", 5), server.base / "outside" / "absent.tif"
    leak = server.masks / "leak.tif"
    leak.symlink_to(there)
    own = server.mask(server.state / "mask.tif", 5)
    inside = server.mask(server.masks / "mask.tif", 5)
    ways: list[Path | str] = [there, absent, leak, own, f"{server.masks}/../outside/mask.tif", "/proc/self/environ"]
    ways += [f"/proc/{process}/root{path}" for process in ("self", "1", "0") for path in (there, absent, inside)]
    reasons = {server.reason(way) for way in ways}
    assert len(reasons) == 1, reasons
    assert "mask: MASK: outside the folders that may be read" in reasons.pop()
    for way in (there, own):
        with pytest.raises(PathError, match="outside"):
            server.runner.set_recipe(recipe(way))


@pytest.mark.skipif(os.name == "nt", reason="there are no such paths")
def test_paths_through_processes_are_outside_wherever_they_lead(tmp_path: Path) -> None:
    frame = tmp_path.resolve() / "a.tif"
    frame.touch()
    roots = Roots.of([tmp_path])
    assert roots.source(frame) == frame
    for way in (f"/proc/self/root{frame}", f"//proc/self/root{frame}", f"/./proc/self/root{frame}", "/dev/fd/0"):
        with pytest.raises(OutsideRootsError, match="outside the folders that may be read"):
            roots.source(way)
