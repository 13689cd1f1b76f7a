"""A detector that takes several frames in one event, and a plan that takes an event again."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import numpy as np
import tifffile
from event_model import compose_resource
from ophyd import Component, Device, Kind, Signal
from ophyd.status import Status

from tests.unit.documents import IMAGE

SHAPE = (32, 48)


class Burst(Device):
    """A detector that writes several frames at each trigger, as areaDetector with `num_images`."""

    image = Component(Signal, value="", kind=Kind.normal)

    def __init__(self, folder: Path, frames: int, *, name: str) -> None:
        super().__init__(name=name)
        self._folder, self._frames = folder, frames
        self._points = itertools.count()
        self._documents: list[tuple[str, Any]] = []
        self._resource: Any = None

    def stage(self) -> list[object]:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._resource = compose_resource(
            spec="AD_TIFF", root="/", resource_path=str(self._folder)[1:],
            resource_kwargs={"template": "%s%s_%6.6d.tiff", "filename": self.name, "frame_per_point": self._frames},
        )  # fmt: skip
        self._documents.append(("resource", self._resource.resource_doc))
        return list(super().stage())

    def trigger(self) -> Status:
        point = next(self._points)
        for number in range(point * self._frames, (point + 1) * self._frames):
            image = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE) + 1000 * number
            tifffile.imwrite(self._folder / f"{self.name}_{number:06d}.tiff", image)
        datum = self._resource.compose_datum(datum_kwargs={"point_number": point})
        self._documents.append(("datum", datum))
        self.image.put(datum["datum_id"])
        done = Status(self)
        done.set_finished()
        return done

    def collect_asset_docs(self) -> Iterator[tuple[str, Any]]:
        documents, self._documents = self._documents, []
        yield from documents

    def describe(self) -> dict[str, Any]:
        return {f"{self.name}_image": {**IMAGE, "shape": [self._frames, *SHAPE]}}


def paused_after(shot: int) -> Any:
    """A `per_shot` that is paused once, between an event and the next checkpoint, so that the event comes again."""
    shots = itertools.count(1)

    def per_shot(detectors: Any) -> Any:
        yield from bps.checkpoint()
        yield from bps.trigger_and_read(detectors)
        if next(shots) == shot:
            yield from bps.pause()

    return per_shot
