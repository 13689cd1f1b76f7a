"""Number the runs of one sample: `sample_0001`, `sample_0002`, ..."""

import itertools
import re
import threading
from pathlib import Path
from typing import ClassVar
from weakref import WeakValueDictionary


class RunStem:
    """The directory and common start of all file names of one run, reserved while this object exists.

    Attributes
    ----------
    directory
        Folder for the frames, created if needed.
    stem
        `{file_name}_{number:04d}` with the first number used neither by a file there nor by another existing `RunStem`:
        two detectors may both be staged before either has written a file.

    """

    _alive: ClassVar[WeakValueDictionary[Path, "RunStem"]] = WeakValueDictionary()
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, directory: Path, file_name: str) -> None:
        if not file_name or Path(file_name).name != file_name:
            raise ValueError(f"file_name must be a name without a directory, not {file_name!r}")
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        with self._lock:
            used = _numbers_used(directory, file_name)
            stems = (f"{file_name}_{number:04d}" for number in itertools.count(1) if number not in used)
            self.stem = next(stem for stem in stems if directory / stem not in self._alive)
            self._alive[directory / self.stem] = self


def _numbers_used(directory: Path, file_name: str) -> set[int]:
    """Return the run numbers in the names of files in `directory`."""
    pattern = re.compile(re.escape(file_name) + r"_(\d{4,})[-.]")
    matches = (pattern.match(path.name) for path in directory.iterdir())
    return {int(match[1]) for match in matches if match}
