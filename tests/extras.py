"""Each extra in an empty environment: does `pip install` bring all that is needed?

    python -m tests.extras                      every extra; takes minutes, and the network
    python -m tests.extras base server          these alone

It builds the wheel, installs it with the extra into a fresh virtual environment, and has that environment do what the
extra is for. The test suite does the same without network and in seconds: there the environment borrows what the extra
names, and no more, from the one that the tests run in (tests/system/test_packaging.py).
"""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from tests.empty_environment import PROJECT, CheckError, EmptyEnvironment, build, metadata_of

FRAME = PROJECT / "tests" / "data" / "qxrd_f32_64.tif"


def _expect(text: str, *parts: str) -> None:
    for part in parts:
        if part not in text:
            raise CheckError(f"found:\n{text}\nexpected in it: {part}")


def _is_absent(here: EmptyEnvironment, *modules: str) -> None:
    found = here.python(f"from importlib.util import find_spec; print([m for m in {modules!r} if find_spec(m)])")
    if json.loads(found.replace("'", '"')):
        raise CheckError(f"found that the extra brings {found.strip()}; expected it to do without")


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
    """A conversion host converts and serves, and has nothing of bluesky."""
    _is_absent(here, "bluesky", "ophyd", "event_model", "tiled")
    here.run("petif", "convert", str(FRAME), "--output-dir", "converted", "--rotation", "90")
    _expect(here.run("petif", "inspect", f"converted/{FRAME.name}"), "complete")
    shutil.copy(FRAME, here.work)
    here.serving(
        "import sys, tango; proxy = tango.DeviceProxy(sys.argv[1]); assert proxy.state() == tango.DevState.ON, "
        "proxy.status()"
    )
    _expect(here.run("PETifConverter", exit_code=2), "usage")


def bluesky(here: EmptyEnvironment) -> None:
    """A bluesky session has every public name, and needs nothing of the conversion host."""
    _is_absent(here, "cv2", "fabio", "imagecodecs")
    here.python(
        "import os; os.environ['OPHYD_CONTROL_LAYER'] = 'dummy'\n"
        "import petif_bluesky\n"
        "for name in petif_bluesky.__all__: getattr(petif_bluesky, name)\n"
        "from petif_bluesky.plans import convert_files, convert_folder, reprocess_run\n"
        "from petif_bluesky.sim import SimulatedPerkinElmer\n"
        "SimulatedPerkinElmer(name='pe', directory='raw')\n"
    )


def zmq(here: EmptyEnvironment) -> None:
    """Documents can come over 0MQ."""
    here.python("import zmq, petif_bluesky.zmq_host")


def metrics(here: EmptyEnvironment) -> None:
    """A conversion host tells its numbers."""
    port = here.python(
        "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"
    ).strip()
    script = f"from urllib.request import urlopen; print(urlopen('http://127.0.0.1:{port}/metrics').read().decode())"
    _expect(here.serving(script, "--set", f"metrics_port={port}"), "petif_queue_length 0")


def monitor(here: EmptyEnvironment) -> None:
    """The page can be made, without bluesky."""
    _is_absent(here, "bluesky", "ophyd")
    here.python("from tango_server.monitor import monitor_panel, web; monitor_panel()")


def preview(here: EmptyEnvironment) -> None:
    """A picture of a frame can be drawn, without bluesky."""
    _is_absent(here, "bluesky", "ophyd")
    here.run("petif", "preview", str(FRAME), "--rotation", "90", "--output", "preview.png")


def tiled(here: EmptyEnvironment) -> None:
    """Statistics can be brought into a catalogue."""
    here.python("import tiled.client, bluesky_tiled_plugins, petif_bluesky.catalogue_statistics")


def dask(here: EmptyEnvironment) -> None:
    """The executor for a cluster is there."""
    here.python("import distributed, tango_server.jobs.cluster")


def everything(here: EmptyEnvironment) -> None:
    """The whole chain works."""
    _expect(here.run("petif", "demo", "--frames", "3", "--size", "256"), "all 3 frames are converted")


def notebooks(here: EmptyEnvironment) -> None:
    """A notebook can be run."""
    notebook = PROJECT / "examples" / "notebooks" / "1-scan.ipynb"
    here.run("jupyter", "nbconvert", "--to", "notebook", "--execute", "--output-dir", ".", str(notebook))


Check = Callable[[EmptyEnvironment], None]
CHECKS: dict[str, tuple[str, tuple[Check, ...]]] = {
    "base": ("", (base,)),
    "server": ("server", (server,)),
    "bluesky": ("bluesky", (bluesky,)),
    "zmq": ("zmq", (bluesky, zmq)),
    "metrics": ("server,metrics", (server, metrics)),
    "dask": ("server,dask", (server, dask)),
    "monitor": ("monitor", (server, monitor)),
    "preview": ("preview", (server, preview)),
    "tiled": ("tiled", (bluesky, tiled)),
    "all": ("all", (everything, zmq)),
    "notebooks": ("notebooks", (notebooks,)),
}
"""What is installed for an extra, and what it must then do besides `whole`; an extra that isn't here: `whole` alone."""


def check(extra: str, wheel: Path, here: EmptyEnvironment, *, borrowed: bool = False) -> None:
    """Put an extra into an environment and have it do what it is for."""
    extras, checks = CHECKS.get(extra, (extra, ()))
    (here.borrow if borrowed else here.install)(wheel, extras)
    for look in (whole, *checks):
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
