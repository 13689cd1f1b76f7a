"""The frames at the paths of a command line, and what to say of a path that has none."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tango_server.text import counted

if TYPE_CHECKING:
    from tango_server.jobs.batch import FileSelection


def frames_of(paths: Sequence[Path], selection: "FileSelection") -> tuple[list[Path], list[str]]:
    """Return the frames at these paths, each once, and for each folder without any the reason.

    Raises
    ------
    click.ClickException
        if a folder cannot be listed, or there is no frame at all.
    """
    from tango_server.conversion.errors import PathError
    from tango_server.jobs.batch import select

    frames: dict[Path, None] = {}
    problems = []
    try:
        for path in paths:
            try:
                found = select([path], selection)
            except PathError as error:  # a circle of symbolic links
                problems.append(str(error))
                continue
            frames.update(dict.fromkeys(found))
            if not found:
                problems.append(_nothing_in(path, selection))
    except OSError as error:
        raise click.ClickException(f"{error.filename}: cannot list the folder: {error.strerror}.") from error
    if not frames:
        raise click.ClickException("\n".join(problems))
    return list(frames), problems


def darks_left_out(paths: Sequence[Path], selection: "FileSelection", frames: Collection[Path]) -> list[Path]:
    """Return the files at these paths that are not among the `frames` because of 'dark' in their names."""
    from tango_server.jobs.batch import select

    if not selection.skip_dark:
        return []
    taken = set(frames)
    folders = [path for path in paths if path.is_dir()]
    return [path for path in select(folders, replace(selection, skip_dark=False)) if path not in taken]


def _nothing_in(path: Path, selection: "FileSelection") -> str:
    """Return why there is no frame at a path, and which option would find some."""
    from tango_server.jobs.batch import select
    from tango_server.jobs.frame_listing import EXPECTED

    remedies = {
        f"no frame matches {' or '.join(selection.patterns)}. Without --pattern": replace(selection, patterns=()),
        "no frame in the folder itself. With --recursive": replace(selection, recursive=True),
        "all frames are darks. With --include-dark": replace(selection, skip_dark=False),
    }
    for words, other in remedies.items():
        if count := len(select([path], other)):
            return f"{path}: {words} there {'is' if count == 1 else 'are'} {counted(count, 'frame')}."
    return f"{path}: no frames in this folder. {EXPECTED}."
