"""What every test may use, and what none may leave behind."""

import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from tango_server.home import give_omniorb_a_socket_folder
from tests.leaks import nothing_left

if TYPE_CHECKING:
    from xdist.scheduler import LoadFileScheduling

os.environ.setdefault("OPHYD_CONTROL_LAYER", "dummy")  # no EPICS here; must be set before ophyd is imported
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # the suite runs in the background of a script
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else the processes that it starts would be deaf, too

if sys.dont_write_bytecode:  # else each of hundreds of processes would compile our modules anew
    sys.dont_write_bytecode = False
    del os.environ["PYTHONDONTWRITEBYTECODE"]

settings.register_profile(
    "busy machine",
    settings(),
    max_examples=60,
    deadline=None,
    suppress_health_check=[*settings().suppress_health_check, HealthCheck.too_slow],
)
settings.load_profile("busy machine")

DATA = Path(__file__).parent / "data"
SYSTEM = Path(__file__).parent / "system"
QXRD_FILES = ("qxrd_f32_64.tif", "qxrd_r16_64.tif", "qxrd_r32_64.tif")
UNFINISHED_FILES = tuple(sorted(path.name for path in DATA.glob("unfinished_*.tif")))


class OnlyModulesWithExamples:
    """Leaves out modules of the packages that hold no doctest: some bring seconds of imports with them."""

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        if collection_path.suffix != ".py" or collection_path.is_relative_to(SYSTEM.parent):
            return None
        return ">>> " not in collection_path.read_text(encoding="utf-8") or None


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(OnlyModulesWithExamples())  # the hooks of a conftest see its own folder only
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # where pytest keeps the folders of tests
    give_omniorb_a_socket_folder()  # its database server and its clients, too; the path of a socket must be short
    folder = tempfile.mkdtemp(prefix="petif-tests-")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    patch.setenv("TMPDIR", folder)  # from here on: some libraries make a folder when they are imported
    patch.setattr(tempfile, "tempdir", folder)
    home = os.environ.get("HOME")
    if os.name != "nt" and not (home and os.access(home, os.W_OK)):  # numba and others insist on one, and write to it
        patch.setenv("HOME", folder)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(SYSTEM):
            item.add_marker(pytest.mark.system)
    if "long" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("long")]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if not item.get_closest_marker("long")]
    items.sort(key=lambda item: item.get_closest_marker("system") is None)  # long files first, short ones fill the end


def pytest_collection_finish() -> None:
    """Spare the garbage collector what lives as long as the session: all libraries, modules and tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> "LoadFileScheduling":
    """Give whole files to the workers, which start the servers of a file once, in the order of collection."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


@pytest.fixture(scope="session")
def data() -> Path:
    return DATA


@pytest.fixture(scope="session")
def long_lived() -> set[int]:
    """Ids of processes that serve the whole session."""
    return set()


@pytest.fixture(scope="session")
def temporary() -> Path:
    """The folder for temporary files of this process and its children, where no test may leave anything."""
    return Path(tempfile.gettempdir())


@pytest.fixture(scope="module", autouse=True)
def no_module_leaves_anything(temporary: Path, long_lived: set[int]) -> Iterator[None]:
    with nothing_left(temporary, long_lived):
        yield
