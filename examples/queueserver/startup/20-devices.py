"""A simulated beamline: a motor, and a Perkin-Elmer that writes QXRD files. Put your own devices here."""

import os

from ophyd.sim import SynAxis

from petif_bluesky.sim import SimulatedPerkinElmer

motor = SynAxis(name="motor")
pe = SimulatedPerkinElmer(name="pe", directory=os.environ["PETIF_RAW"], shape=(256, 256), motor=motor)
