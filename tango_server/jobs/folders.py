"""Which files of a folder are frames."""

import os
from collections.abc import Iterator
from pathlib import Path

_SUFFIXES = (".tif", ".tiff")


def is_frame_name(name: str, *, skip_dark: bool = True) -> bool:
    """Whether a file of this name is taken from a folder: a TIFF, and no dark unless asked.

    >>> is_frame_name("pat-00001.TIF"), is_frame_name("pat-00001.dark.tif"), is_frame_name("pat-00001.tif.metadata")
    (True, False, False)
    """
    lower = name.lower()
    return lower.endswith(_SUFFIXES) and not name.startswith(".") and not (skip_dark and "dark" in lower)


def frames_in(folder: Path, *, recursive: bool = False, skip_dark: bool = True) -> Iterator[Path]:
    """Yield the frames in a folder in the order of their names, those of sub-folders after them if `recursive`.

    Raises
    ------
    OSError
        if the folder can't be listed.

    """
    with os.scandir(folder) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    for entry in listed:
        if is_frame_name(entry.name, skip_dark=skip_dark) and entry.is_file():
            yield Path(entry.path)
    if recursive:
        for entry in listed:
            if entry.is_dir(follow_symlinks=False):
                yield from frames_in(Path(entry.path), recursive=True, skip_dark=skip_dark)
