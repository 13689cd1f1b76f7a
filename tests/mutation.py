"""How many faults the unit tests of a room notice: `python -m tests.mutation [ROOM ...]`, about half an hour for all.

mutmut makes one small fault after another (a mutant); a room's own unit tests are run against each. Which 100 of a
room's mutants are tried is drawn with a fixed seed, so that figures before and after a change of the tests compare.
Needs `pip install -e '.[mutation]'`, and fork (no Windows).
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

TREE = Path(__file__).parents[1]
COPIED = ["benchmarks", "docs", "examples", "petif_bluesky", "tango_server", "tests", "pyproject.toml", "README.md"]
NOTICED = {
    1: "killed",
    3: "killed",
    -24: "timeout",
    24: "timeout",
    36: "timeout",
    152: "timeout",
    255: "timeout",
    -11: "crash",
    -9: "crash",
}
NOWHERE = "no_such_mutant"


@dataclass(frozen=True)
class Room:
    """Modules, and what of `tests/unit` answers for them."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]


def _in(folder: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}.py" for name in names)


_CONVERSION, _JOBS = "tango_server/conversion", "tango_server/jobs"
ROOMS = {
    "image": Room(
        _in(f"{_CONVERSION}/image", "transform", "pixels", "orientation"),
        _in(_CONVERSION, "image/test_transform", "tiff/test_reader"),
    ),
    "tiff": Room(
        _in(f"{_CONVERSION}/tiff", "structure", "parser", "reader", "writer", "tifffile_decoder", "tifffile_writer"),
        (
            *_in(f"{_CONVERSION}/tiff", "test_structure", "test_reader", "test_writer", "test_kept_tags"),
            *_in(_CONVERSION, "test_convert_file", "test_hostile_input", "test_hostile_files"),
        ),
    ),
    "jobs": Room(
        _in(
            f"{_JOBS}/state_machine",
            "machine", "job_state", "readiness", "ready_queue", "backlog", "poll_schedule", "companion_schedule",
            "statistics", "server_state", "rules",
        ),
        (f"{_JOBS}/state_machine", f"{_JOBS}/test_engine_in_need.py", f"{_CONVERSION}/esperanto/test_companions.py"),
    ),
    "documents": Room(
        (
            *_in(
                "petif_bluesky/documents",
                "assets", "descriptors", "errors", "frame", "file_names", "uris", "resources", "points", "run",
                "selection", "file_series", "templates",
            ),
            "petif_bluesky/frames.py",
        ),
        (
            "petif_bluesky/documents/test_document_shapes.py",
            "petif_bluesky/documents/test_assets.py",
            "petif_bluesky/test_frames.py",
        ),
    ),
}  # fmt: skip


@click.command()
@click.argument("rooms", nargs=-1, type=click.Choice(sorted(ROOMS)))
@click.option("--count", default=100, show_default=True, help="Mutants for each room.")
@click.option("--seed", default=14, show_default=True, help="Of the draw.")
@click.option("--tree", default=TREE, type=click.Path(path_type=Path), help="The checkout, if not this one.")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the mutated copies here, for `mutmut show NAME`.")
def main(rooms: tuple[str, ...], count: int, seed: int, tree: Path, keep: Path | None) -> None:
    """Print which share of the mutants of each of ROOMS (default: all) its unit tests kill."""
    with tempfile.TemporaryDirectory() as temporary:
        for name in rooms or ROOMS:
            judge(name, ROOMS[name], tree, (keep or Path(temporary)) / name, count, seed)


def judge(name: str, room: Room, tree: Path, folder: Path, count: int, seed: int) -> None:
    copy(tree, folder, room)
    environment = {**os.environ, "CI": "true"}  # Hypothesis draws the same examples each time
    run = partial(subprocess.run, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    run(mutmut(NOWHERE), check=False, stderr=subprocess.DEVNULL)  # makes all mutants, then finds none of this name
    names = sorted(outcomes(folder))
    drawn = random.Random(seed).sample(names, min(count, len(names)))
    run(mutmut(*drawn), check=True)
    ended = {mutant: NOTICED.get(code, "survived") for mutant, code in outcomes(folder).items() if mutant in drawn}
    survivors = sorted(mutant for mutant, outcome in ended.items() if outcome == "survived")
    click.echo(f"{name}: {len(drawn) - len(survivors)} of {len(drawn)} killed ({len(names)} mutants in all)")
    for mutant in survivors:
        click.echo(f"  survived: {mutant}")


def copy(tree: Path, folder: Path, room: Room) -> None:
    """Copy what the tests need of the checkout, with mutmut's settings for this room."""
    folder.mkdir(parents=True)
    subprocess.run(["cp", "-r", *(str(tree / part) for part in COPIED), folder], check=True)
    settings = {
        "source_paths": sorted({module.split("/")[0] for module in room.modules}),
        "only_mutate": list(room.modules),
        "also_copy": COPIED,
        "pytest_add_cli_args_test_selection": [f"tests/unit/{test}" for test in room.tests],
        "process_isolation": "forkserver",
        "pytest_add_cli_args": [
            "--import-mode=importlib",
            "-p",
            "no:randomly",
            "-p",
            "no:xdist",
            "-p",
            "no:cacheprovider",
        ],
    }
    with (folder / "pyproject.toml").open("a") as file:
        file.write("\n[tool.mutmut]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))


def mutmut(*names: str) -> list[str]:
    return [sys.executable, "-m", "mutmut", "run", "--max-children", "2", *names]


def outcomes(folder: Path) -> dict[str, int | None]:
    """Return the exit code of the tests by mutant; None: not tried."""
    found: dict[str, int | None] = {}
    for path in sorted((folder / "mutants").rglob("*.py.meta")):
        found.update(json.loads(path.read_text())["exit_code_by_key"])
    return found


if __name__ == "__main__":
    main()
