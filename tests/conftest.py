"""What every test may use."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OPHYD_CONTROL_LAYER", "dummy")  # no EPICS here; must be set before ophyd is imported

DATA = Path(__file__).parent / "data"
QXRD_FILES = ("qxrd_f32_64.tif", "qxrd_r16_64.tif", "qxrd_r32_64.tif")
UNFINISHED_FILES = tuple(sorted(path.name for path in DATA.glob("unfinished_*.tif")))


@pytest.fixture(scope="session")
def data() -> Path:
    return DATA
