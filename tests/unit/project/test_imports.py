"""What each part imports, seen in fresh interpreters: import contracts don't see what an `__init__` does.

One interpreter runs several statements in turn, the lightest first. So what is loaded only grows, and what one of them
must not load must not be loaded by those before it either.
"""

import json
import subprocess
import sys
from functools import cache

import pytest

BLUESKY = {"bluesky", "ophyd", "event_model", "tiled", "petif_bluesky"}
HEAVY = {"pytest", "tango", "cv2", "tifffile", "fabio", "matplotlib", "rich", "numpy", "sqlite3", "asyncio"}
LIGHT = HEAVY | BLUESKY
SESSION_LIGHT = LIGHT - {"petif_bluesky"}
CONVERSION_ONLY = {"tango", "fabio", "matplotlib", "rich", "sqlite3", *BLUESKY}
FORBIDDEN = {
    "conversion host": {
        "import tango_server": LIGHT,
        "import tango_server.conversion": LIGHT,
        "import tango_server.cli": LIGHT,
        "import tango_server.jobs.executors.worker": CONVERSION_ONLY,
        "import tango_server.conversion.convert": CONVERSION_ONLY,
        "import tango_server.recipe": BLUESKY,
        "import tango_server.jobs.startup": BLUESKY,
        "import tango_server.device.converter": BLUESKY,
        "import tango_server.monitor.page, tango_server.monitor.sharing": BLUESKY,
    },
    "bluesky session": {
        "import petif_bluesky": SESSION_LIGHT,
        "import petif_bluesky.testing": SESSION_LIGHT,
        "from petif_bluesky import PETifConverter": {"pytest", "cv2", "bluesky", "tifffile", "imagecodecs", "rich"},
        "from petif_bluesky.testing import FakeServer; FakeServer()": {"pytest", "cv2", "bluesky"},
        "import petif_bluesky.converter": {"cv2", "tifffile", "imagecodecs", "rich"},
        "import petif_bluesky.callback": {"cv2", "tifffile", "imagecodecs", "rich"},
        "import petif_bluesky.preprocessors": {"cv2", "tifffile", "imagecodecs", "rich"},
    },
    "async session": {
        "import petif_bluesky.ophyd_async": SESSION_LIGHT | {"ophyd_async"},
        "from petif_bluesky.ophyd_async import ConversionDevice; from petif_bluesky import attach": {"ophyd", "cv2"},
    },
    "pytest fixtures": {"import petif_bluesky.testing.fixtures": {"tango", "bluesky", "ophyd", "numpy"}},
}
SCRIPT = """
import json, sys
sys.modules["setuptools_scm"] = None  # brought by hatch-vcs, which users don't have; ophyd would load it, and rich
for statement in json.load(sys.stdin):
    exec(statement)
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@cache
def loaded_after(statements: tuple[str, ...]) -> dict[str, set[str]]:
    """Return the packages that are loaded after each of the statements."""
    command = [sys.executable, "-c", SCRIPT]
    ended = subprocess.run(command, input=json.dumps(statements), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return dict(zip(statements, map(set, map(json.loads, ended.stdout.splitlines())), strict=True))


@pytest.mark.parametrize("part", FORBIDDEN)
def test_imports_bring_nothing_that_is_not_needed(part: str) -> None:
    loaded = loaded_after(tuple(FORBIDDEN[part]))
    unwanted = {statement: loaded[statement] & names for statement, names in FORBIDDEN[part].items()}
    assert not {statement: names for statement, names in unwanted.items() if names}


def test_public_names_are_loaded_when_they_are_used() -> None:
    loaded = loaded_after(tuple(FORBIDDEN["bluesky session"]))
    assert "tango" in loaded["from petif_bluesky import PETifConverter"] - loaded["import petif_bluesky"]
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        from petif_bluesky import Nothing  # type: ignore[attr-defined]  # noqa: F401
