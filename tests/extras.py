"""Each extra in an empty environment: does `pip install` bring all that is needed?

    python -m tests.extras                      every extra; takes minutes, and the network
    python -m tests.extras base server          these alone

It builds the wheel, installs it with the extra into a fresh virtual environment, and has that environment do what the
extra is for. The test suite does the same without network and in seconds: there the environment borrows what the extra
names, and no more, from the one that the tests run in (tests/system/test_packaging.py).
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Sequence
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZipFile

import click
from packaging.metadata import RawMetadata, parse_email
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[1]
FRAME = PROJECT / "tests" / "data" / "qxrd_f32_64.tif"
_PATIENCE = 600


class CheckError(Exception):
    """A command in an empty environment did not do what it should."""


def build(folder: Path, *forms: str, tree: Path = PROJECT) -> Path:
    """Build a tree with the build tools of this environment; return the wheel, or else the sdist.

    Without a form: the sdist, and the wheel out of it.
    """
    _run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), *forms, str(tree)], cwd=folder)
    return next(iter([*folder.glob("*.whl"), *folder.glob("*.tar.gz")]))


class EmptyEnvironment:
    """A virtual environment with nothing in it, and an empty folder to work in."""

    def __init__(self, folder: Path) -> None:
        self.work = folder / "work"
        self.work.mkdir(parents=True)
        self._programs = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        venv.create(folder / "venv")

    def install(self, wheel: Path, extras: str = "") -> None:
        """Install a wheel with what its extras need; pip takes what it has in its cache."""
        requirement = f"petif-bluesky[{extras}] @ {wheel.as_uri()}" if extras else str(wheel)
        self.pip("install", "--quiet", "--no-compile", requirement)

    def borrow(self, wheel: Path, extras: str = "") -> None:
        """Install a wheel alone, beside links to the packages of this environment that its extras need."""
        self.pip("install", "--quiet", "--no-compile", "--no-deps", "--no-index", str(wheel))
        place = Path(self.python("import sysconfig; print(sysconfig.get_path('purelib'))").strip())
        for name in needed(wheel, extras):
            found = distribution(name)
            here = Path(str(found.locate_file("")))
            for top in {file.parts[0] for file in found.files or () if file.parts[0] not in {"..", "__pycache__"}}:
                if not (place / top).exists():
                    (place / top).symlink_to(here / top)

    def pip(self, *arguments: str) -> None:
        """Run this interpreter's pip on the environment: it needs none of its own, which saves seconds."""
        python = str(self._programs / "python")
        _run([sys.executable, "-m", "pip", "--python", python, *arguments], cwd=self.work)

    def run(self, program: str, *arguments: str, exit_code: int = 0) -> str:
        """Run a program of the environment in `work`; return what it wrote.

        Raises
        ------
        CheckError
            if it ends with another exit code

        """
        return _run([str(self._programs / program), *arguments], cwd=self.work, exit_code=exit_code)

    def python(self, script: str) -> str:
        """Run a script."""
        return self.run("python", "-c", script)

    def serving(self, script: str, *options: str) -> str:
        """Run a script while `petif serve` serves `work`; it finds the address in `sys.argv[1]`."""
        command = [str(self._programs / "petif"), "serve", "--port", "0", "--stop-on-eof", "--state-dir", "state"]
        with subprocess.Popen(
            [*command, *options],
            cwd=self.work,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as server:
            assert server.stdin is not None
            assert server.stdout is not None
            try:
                line = next((line for line in server.stdout if line.startswith("ready: ")), "")
                if not line:
                    raise CheckError(
                        f"petif serve {' '.join(options)} ended with {server.wait(_PATIENCE)} before it was ready"
                    )
                written = self.run("python", "-c", script, line.removeprefix("ready: ").strip())
                server.stdin.close()
                if code := server.wait(_PATIENCE):
                    raise CheckError(f"petif serve ended with {code}")
            finally:
                server.kill()
        return written


def _environment() -> dict[str, str]:
    """Return this process' environment without what would let the checkout, or this interpreter's packages, in."""
    return {name: text for name, text in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}}


def _run(command: Sequence[str], *, cwd: Path, exit_code: int = 0) -> str:
    ended = subprocess.run(
        command,
        cwd=cwd,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    if ended.returncode != exit_code:
        words = " ".join(command)
        raise CheckError(f"{words}\nended with {ended.returncode}, expected {exit_code}:\n{ended.stdout[-4000:]}")
    return ended.stdout


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
    "all": ("all", (everything, zmq)),
    "notebooks": ("notebooks", (notebooks,)),
}
"""What is installed for an extra, and what it must then do besides `whole`; an extra that is not here: `whole` alone."""


def check(extra: str, wheel: Path, here: EmptyEnvironment, *, borrowed: bool = False) -> None:
    """Put an extra into an environment and have it do what it is for."""
    extras, checks = CHECKS.get(extra, (extra, ()))
    (here.borrow if borrowed else here.install)(wheel, extras)
    for look in (whole, *checks):
        look(here)


def metadata_of(wheel: Path) -> RawMetadata:
    """Return the metadata of a wheel."""
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return parse_email(archive.read(name))[0]


def extras_of(wheel: Path) -> list[str]:
    """Return the extras that a wheel offers, `base` first."""
    return ["base", *metadata_of(wheel).get("provides_extra", [])]


def needed(wheel: Path, extras: str = "") -> set[str]:
    """Return the packages that a wheel needs with its extras, theirs included, as this environment has them."""
    own = [Requirement(text) for text in metadata_of(wheel).get("requires_dist", [])]
    found: set[str] = set()
    looked_at: set[tuple[str, str]] = set()
    left = [(own, extra) for extra in ("", *filter(None, extras.split(",")))]
    while left:
        requirements, extra = left.pop()
        for requirement in requirements:
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            name = canonicalize_name(requirement.name)
            its_own = (
                own if name == "petif-bluesky" else [Requirement(text) for text in distribution(name).requires or ()]
            )
            for more in {(name, extra) for extra in ("", *requirement.extras)} - looked_at:
                looked_at.add(more)
                left.append((its_own, more[1]))
            found.add(name)
    return found - {"petif-bluesky"}


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
