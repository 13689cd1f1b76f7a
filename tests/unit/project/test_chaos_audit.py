"""The audit of the chaos test finds every fault that it is there for: here each is made by hand."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from petif_bluesky.sim.qxrd_file import write_frame
from tango_server.conversion.convert import convert_file
from tango_server.recipe import Recipe
from tests.chaos.audit import Auditor, Claims, Fault
from tests.chaos.detector import Written, digest_of
from tests.chaos.frames import PLACES, PlannedFrame, image_of
from tests.chaos.ground import Ground
from tests.chaos.scale import short

_SEED = 1
_IN_PLACE = {"rotation": 90, "flip": "none", "pixel_type": None, "output": {"mode": "in_place"}}
_NEW = {"rotation": 270, "flip": "1", "pixel_type": "uint16", "output": {"mode": "new", "on_existing": "number"}}


@dataclass
class Scene:
    """Two converted frames, one new and one in place, with what a server would claim of them."""

    ground: Ground
    written: list[Written]
    claims: Claims

    def faults(self) -> set[Fault]:
        auditor = Auditor(_SEED, short().size, 30.0, self.ground)
        return {finding.fault for finding in auditor.findings(self.written, self.claims)}

    @property
    def source(self) -> Path:
        return self.written[0].path

    @property
    def output(self) -> Path:
        return self.ground.processed("disk") / self.source.name

    @property
    def turned(self) -> Path:
        return self.written[1].path


def _frame(number: int, recipe: dict[str, Any]) -> PlannedFrame:
    return PlannedFrame(
        number=number, place="disk", pixel_type="float32", recipe=recipe, run_uid="run" if number == 0 else None,
        key=str(number), early=False, sidecar=False, unfinished=0,
    )  # fmt: skip


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    frames = (_frame(0, _NEW), _frame(1, _IN_PLACE))
    ground = Ground(tmp_path, short(), frames)
    for place in PLACES:
        ground.raw(place).mkdir(parents=True)
    written, reports = [], {}
    for frame in frames:
        path = ground.raw("disk") / frame.name
        write_frame(path, image_of(_SEED, frame, short().size), document_name=path.name, acquired=datetime.now())
        written.append(Written(frame, path, digest_of(path), ""))
        report = convert_file(path, Recipe.model_validate(frame.recipe)).model_dump(mode="json")
        reports[frame.key] = {**report, "latency": 0.1}
    claims = Claims({0: {"0"}, 1: {"1"}}, {}, dict(reports), dict(reports), {"run": 1})
    return Scene(ground, written, claims)


def _turn_twice(scene: Scene) -> None:
    with tifffile.TiffFile(scene.turned) as tiff:
        image, description = tiff.asarray(), tiff.pages.first.description
    tifffile.imwrite(scene.turned, np.rot90(image), description=description, metadata=None)


def _spoil_a_pixel(scene: Scene) -> None:
    content = bytearray(scene.output.read_bytes())
    content[-1] ^= 1
    scene.output.write_bytes(content)


_HARMS: dict[str, tuple[Fault, Callable[[Scene], object]]] = {
    "no job": (Fault.LOST, lambda scene: scene.claims.job_ids.pop(0)),
    "no report": (Fault.LOST, lambda scene: (scene.claims.first.pop("0"), scene.claims.last.pop("0"))),
    "no output": (Fault.LOST, lambda scene: scene.output.unlink()),
    "failed": (Fault.LOST, lambda scene: scene.claims.last["0"].update(outcome="failed", reason="")),
    "two jobs": (Fault.DOUBLED, lambda scene: scene.claims.job_ids[0].add("2")),
    "counted twice": (Fault.DOUBLED, lambda scene: scene.claims.submitted.update(run=2)),
    "two outputs": (
        Fault.DOUBLED,
        lambda scene: shutil.copy(scene.output, scene.output.with_stem(f"{scene.output.stem}-00001")),
    ),
    "turned twice": (Fault.DOUBLED, _turn_twice),
    "wrong pixel": (Fault.WRONG, _spoil_a_pixel),
    "cut off": (Fault.WRONG, lambda scene: scene.output.write_bytes(scene.output.read_bytes()[:-1])),
    "other frame": (Fault.WRONG, lambda scene: shutil.copy(scene.turned, scene.output)),
    "source changed": (Fault.SOURCE, lambda scene: scene.source.write_bytes(b"changed")),
    "source removed": (Fault.SOURCE, lambda scene: scene.source.unlink()),
    "temporary file": (Fault.LEFTOVER, lambda scene: (scene.output.parent / ".a.tif.1.2.petif-tmp").touch()),
    "refused": (Fault.REFUSED, lambda scene: scene.claims.refused.update({0: "no"})),
    "report forgotten": (Fault.FORGOTTEN, lambda scene: scene.claims.last.pop("0")),
    "report changed": (
        Fault.CHANGED,
        lambda scene: scene.claims.last.update({"0": {**scene.claims.last["0"], "outcome": "skipped"}}),
    ),
    "yesterday": (Fault.TIME, lambda scene: scene.claims.last["0"].update(latency=-86_400.0)),
}


def test_good_run_has_no_findings(scene: Scene) -> None:
    assert scene.faults() == set()


@pytest.mark.parametrize("name", _HARMS)
def test_every_fault_is_found(scene: Scene, name: str) -> None:
    fault, harm = _HARMS[name]
    harm(scene)
    assert fault in scene.faults()
