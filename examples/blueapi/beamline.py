"""A simulated beamline for blueapi: a classic motor, an ophyd-async Perkin-Elmer, and plans.

The addresses are read from the environment, the types of the plans' arguments by blueapi.
"""

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bluesky.plans as bp
from blueapi.service.interface import context
from bluesky.protocols import Movable, Readable
from bluesky.utils import MsgGenerator
from ophyd.sim import SynAxis
from ophyd_async.core import StaticFilenameProvider, StaticPathProvider, init_devices

from petif_bluesky import Recipe, attach
from petif_bluesky.sim.async_detector import SimulatedPerkinElmer

__all__ = ["count", "scan"]

RECIPE = Recipe.preset("xdi", rotation=90, flip="1")


class Beamline:
    """Makes the devices. Put your own here, or use dodal's device manager instead."""

    def build_and_connect(self, *, mock: bool = False, **_: Any) -> SimpleNamespace:
        """Return the devices by name, with the errors of those that could not be made or connected."""
        motor = SynAxis(name="motor")
        paths = StaticPathProvider(StaticFilenameProvider("sample"), Path(os.environ["PETIF_RAW"]))
        with init_devices(mock=mock):
            pe = SimulatedPerkinElmer(paths, shape=(256, 256), motor=motor)
        return SimpleNamespace(devices={"motor": motor, "pe": pe}, build_errors={}, connection_errors={})


devices = Beamline()


def converted(plan: Callable[..., MsgGenerator]) -> Callable[..., MsgGenerator]:
    """Attach the converter when the plan is called: blueapi offers no hook for this when it makes the RunEngine.

    Not a generator: in a running plan it would be too late, since the RunEngine has applied its preprocessors by then.
    """

    @wraps(plan)
    def attached(*args: Any, **kwargs: Any) -> MsgGenerator:
        attach(context().run_engine, os.environ["PETIF_DEVICE"], recipe=RECIPE, tiled=os.environ["TILED_URI"])
        return plan(*args, **kwargs)

    return attached


@converted
def count(detectors: list[Readable], num: int = 1) -> MsgGenerator:
    """Take `num` frames with each detector."""
    return (yield from bp.count(detectors, num))


@converted
def scan(detectors: list[Readable], motor: Movable, start: float, stop: float, num: int) -> MsgGenerator:
    """Take a frame with each detector at `num` positions of the motor."""
    return (yield from bp.scan(detectors, motor, start, stop, num))
