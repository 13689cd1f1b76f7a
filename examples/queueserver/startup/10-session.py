"""The session of the worker: RunEngine, catalogue and conversion server, at addresses from the environment."""

import os

os.environ.setdefault("OPHYD_CONTROL_LAYER", "dummy")  # no EPICS in this example

from bluesky import RunEngine
from bluesky_tiled_plugins import TiledWriter
from tiled.client import from_uri

from petif_bluesky import ConversionCallback, ConversionPreprocessor, PETifConverter
from petif_bluesky.tiled.literal_names import LiteralNames
from petif_bluesky.tiled.statistics import CatalogueStatistics
from tango_server.recipe import Recipe

NEEDED = ("TILED_URI", "PETIF_DEVICE", "PETIF_RAW")
if missing := [name for name in NEEDED if not os.environ.get(name)]:
    raise RuntimeError(
        f"environment: {', '.join(missing)} not set. Export {', '.join(NEEDED)} and start the RE Manager again."
    )

catalogue = from_uri(os.environ["TILED_URI"])  # reads its key from TILED_API_KEY
converter = PETifConverter(os.environ["PETIF_DEVICE"], name="converter")

RE = RunEngine({})
RE.subscribe(ConversionCallback(converter))
RE.subscribe(LiteralNames(TiledWriter(catalogue)))
RE.subscribe(CatalogueStatistics(catalogue, converter))
RE.preprocessors.append(ConversionPreprocessor(converter, recipe=Recipe.preset("xdi", rotation=90, flip="1")))
