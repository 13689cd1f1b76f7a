"""Each extra in an empty environment: does `pip install` bring all that is needed?

    python -m tests.extras                      every extra; takes minutes, and the network
    python -m tests.extras base server          these alone

It builds the wheel, installs it with the extra into a fresh virtual environment, and has that environment do what the
extra is for. The test suite does the same without network and in seconds: there the environment borrows what the extra
names, and no more, from the one that the tests run in (tests/system/test_packaging.py).
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from tango_server.addresses import free_port
from tests.empty_environment import PROJECT, CheckError, EmptyEnvironment, build, metadata_of

FRAME = PROJECT / "tests" / "data" / "qxrd_f32_64.tif"


def _expect(text: str, *parts: str) -> None:
    for part in parts:
        if part not in text:
            raise CheckError(f"found:\n{text}\nexpected in it: {part}")


def whole(here: EmptyEnvironment) -> None:
    """What holds with every extra: the parts fit each other, and the program starts in all its forms."""
    here.pip("check")
    versions = [here.run("petif", "--version")]
    helps = [here.run("petif", "--help")]
    for package in ("tango_server", "petif_bluesky"):
        versions.append(here.run("python", "-m", package, "--version"))
        helps.append(here.run("python", "-m", package, "--help"))
    if len(set(versions)) > 1 or len(set(helps)) > 1:
        raise CheckError(f"found that `petif` and `python -m` differ: {versions} {helps}")
    _expect(helps[0], "convert", "demo", "serve")
    here.python("import petif_bluesky; from tango_server.recipe import Recipe; Recipe.preset('xdi', rotation=90)")


def base(here: EmptyEnvironment) -> None:
    """Without an extra a command says which one it needs."""
    for words in (["convert", str(FRAME), "--output-dir", "."], ["serve", "--port", "0"]):
        _expect(here.run("petif", *words, exit_code=1), "pip install 'petif-bluesky[server]'")


def server(here: EmptyEnvironment) -> None:
    """A conversion host converts and serves."""
    here.run("petif", "convert", str(FRAME), "--output-dir", "converted", "--rotation", "90")
    _expect(here.run("petif", "inspect", f"converted/{FRAME.name}"), "complete")
    shutil.copy(FRAME, here.work)
    here.serving(
        "import sys, tango; proxy = tango.DeviceProxy(sys.argv[1]); assert proxy.state() == tango.DevState.ON, "
        "proxy.status()"
    )
    _expect(here.run("PETifConverter", exit_code=2), "usage")


def metrics(here: EmptyEnvironment) -> None:
    """A conversion host tells its numbers."""
    port = free_port("127.0.0.1")
    script = f"from urllib.request import urlopen; print(urlopen('http://127.0.0.1:{port}/metrics').read().decode())"
    _expect(here.serving(script, "--set", f"metrics_port={port}"), "petif_queue_length 0")


def preview(here: EmptyEnvironment) -> None:
    """A picture of a frame can be drawn."""
    here.run("petif", "preview", str(FRAME), "--rotation", "90", "--output", "preview.png")


def everything(here: EmptyEnvironment) -> None:
    """The whole chain works."""
    _expect(here.run("petif", "demo", "--frames", "3", "--size", "256"), "All 3 frames were converted")


def notebooks(here: EmptyEnvironment) -> None:
    """A notebook can be run."""
    notebook = PROJECT / "examples" / "notebooks" / "1-scan.ipynb"
    here.run("jupyter", "nbconvert", "--to", "notebook", "--execute", "--output-dir", ".", str(notebook))


@dataclass(frozen=True)
class Extra:
    """What is installed for an extra, what that must not bring, a script that must run, and what else must work."""

    installed: str
    absent: tuple[str, ...] = ()
    script: str = ""
    checks: tuple[Callable[[EmptyEnvironment], None], ...] = ()


_SESSION = """
import os; os.environ['OPHYD_CONTROL_LAYER'] = 'dummy'
import petif_bluesky
for name in petif_bluesky.__all__: getattr(petif_bluesky, name)
from petif_bluesky.plans import convert_files, convert_folder, reprocess_run
from petif_bluesky.sim import SimulatedPerkinElmer
SimulatedPerkinElmer(name='pe', directory='raw')
"""
_ASYNC = "from petif_bluesky.ophyd_async import ConversionDevice"
_ZMQ = "import zmq, petif_bluesky.remote.zmq_host"
_TILED = "import tiled.client, bluesky_tiled_plugins, petif_bluesky.tiled.statistics"
_HOST = ("bluesky", "ophyd", "event_model", "tiled")
_CLIENT = ("cv2", "fabio", "imagecodecs")
CHECKS = {
    "base": Extra("", checks=(base,)),
    "server": Extra("server", _HOST, checks=(server,)),
    "bluesky": Extra("bluesky", _CLIENT, _SESSION),
    "ophyd-async": Extra("ophyd-async", _CLIENT, _SESSION + _ASYNC),
    "zmq": Extra("zmq", _CLIENT, _SESSION + _ZMQ),
    "metrics": Extra("server,metrics", _HOST, checks=(server, metrics)),
    "dask": Extra("server,dask", _HOST, "import distributed, tango_server.jobs.executors.dask_cluster", (server,)),
    "monitor": Extra(
        "monitor", _HOST, "from tango_server.monitor import monitor_panel, web; monitor_panel()", (server,)
    ),
    "preview": Extra("preview", _HOST, checks=(server, preview)),
    "tiled": Extra("tiled", _CLIENT, _SESSION + _TILED),
    "all": Extra("all", script=_ZMQ, checks=(everything,)),
    "notebooks": Extra("notebooks", checks=(notebooks,)),
}


def check(name: str, wheel: Path, here: EmptyEnvironment, *, borrowed: bool = False) -> None:
    """Put an extra into an environment and have it do what it is for; one that isn't in CHECKS: `whole` alone."""
    extra = CHECKS.get(name, Extra(name))
    (here.borrow if borrowed else here.install)(wheel, extra.installed)
    whole(here)
    found = here.python(f"from importlib.util import find_spec; print(*filter(find_spec, {extra.absent!r}))").split()
    if found:
        raise CheckError(f"found that the extra brings {found}; expected it to do without")
    here.python(extra.script)
    for look in extra.checks:
        look(here)


def extras_of(wheel: Path) -> list[str]:
    """Return the extras that a wheel offers, `base` first."""
    return ["base", *metadata_of(wheel).get("provides_extra", [])]


@click.command()
@click.argument("extras", nargs=-1)
def main(extras: tuple[str, ...]) -> None:
    """Install each extra into an empty environment and have it do what it is for."""
    failed = []
    with tempfile.TemporaryDirectory(prefix="petif-extras-") as name:
        folder = Path(name)
        (folder / "dist").mkdir()
        wheel = build(folder / "dist")
        for extra in extras or extras_of(wheel):
            began = time.monotonic()
            try:
                check(extra, wheel, EmptyEnvironment(folder / extra))
                outcome = "works"
            except CheckError as error:
                failed.append(extra)
                outcome = f"FAILS\n{error}"
            click.echo(f"{extra:12} {time.monotonic() - began:6.0f} s  {outcome}")
            shutil.rmtree(folder / extra)
    sys.exit(f"these extras fail: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
