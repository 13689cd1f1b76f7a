"""What every test may use."""

import os
import signal
from pathlib import Path

import pytest

os.environ.setdefault("OPHYD_CONTROL_LAYER", "dummy")  # no EPICS here; must be set before ophyd is imported
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # the suite runs in the background of a script
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else the processes that it starts would be deaf, too

DATA = Path(__file__).parent / "data"
QXRD_FILES = ("qxrd_f32_64.tif", "qxrd_r16_64.tif", "qxrd_r32_64.tif")
UNFINISHED_FILES = tuple(sorted(path.name for path in DATA.glob("unfinished_*.tif")))


@pytest.fixture(scope="session")
def data() -> Path:
    return DATA
