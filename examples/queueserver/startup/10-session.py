"""The session of the worker: RunEngine, catalogue and conversion server, at addresses from the environment."""

import os

os.environ.setdefault("OPHYD_CONTROL_LAYER", "dummy")  # no EPICS in this example

from bluesky import RunEngine
from tiled.client import from_uri

from petif_bluesky import Recipe, attach

NEEDED = ("TILED_URI", "PETIF_DEVICE", "PETIF_RAW")
if missing := [name for name in NEEDED if not os.environ.get(name)]:
    raise RuntimeError(
        f"environment: {', '.join(missing)} not set. Export {', '.join(NEEDED)} and start the RE Manager again."
    )

catalogue = from_uri(os.environ["TILED_URI"])  # reads its key from TILED_API_KEY
RE = RunEngine({})
recipe = Recipe.preset("xdi", rotation=90, flip="1")
converter = attach(RE, os.environ["PETIF_DEVICE"], recipe=recipe, tiled=catalogue).converter
