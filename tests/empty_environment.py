"""What is built, in a virtual environment that is empty but for it."""

import os
import subprocess
import sys
import threading
import venv
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZipFile

from packaging.metadata import RawMetadata, parse_email
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[1]
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
        return _run([str(self.program(program)), *arguments], cwd=self.work, exit_code=exit_code)

    def program(self, name: str) -> Path:
        """Return the path of a program."""
        return self._programs / name

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
            give_up = threading.Timer(_PATIENCE, server.kill)
            give_up.start()
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
                give_up.cancel()
                server.kill()
        return written


def _environment() -> dict[str, str]:
    """Return this process' environment without what would let the checkout, or this interpreter's packages, in."""
    return {name: text for name, text in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}}


def _run(command: Sequence[str], *, cwd: Path, exit_code: int = 0) -> str:
    try:
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
    except subprocess.TimeoutExpired as error:
        raise CheckError(f"{' '.join(command)}\nfound that it did not end within {_PATIENCE:g} s") from error
    if ended.returncode != exit_code:
        words = " ".join(command)
        raise CheckError(f"{words}\nended with {ended.returncode}, expected {exit_code}:\n{ended.stdout[-4000:]}")
    return ended.stdout


def metadata_of(wheel: Path) -> RawMetadata:
    """Return the metadata of a wheel."""
    with ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return parse_email(archive.read(name))[0]


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
