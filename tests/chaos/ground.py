"""The folders that a run takes place in, and what can be done to them: filled up, made read-only."""

import os
import shutil
import subprocess
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tango_server.conversion.files.temporary_names import TEMPORARY_SUFFIX
from tests.chaos.frames import PLACES, PlannedFrame
from tests.chaos.plan import Kind
from tests.chaos.scale import Scale

_BLOCK = bytes(2**16)
_FILLER = "filler"
_MARGIN = 32 * 2**20
"""Room on each small disk beside what the run itself puts there, in bytes."""
_JOB_BYTES = 8192
_PATIENCE = 10.0


class Ground:
    """A root with raw and processed folders, and a state folder. The disturbed ones are small disks in memory.

    Without the rights to mount them, only what permission bits can do is done.
    """

    def __init__(self, folder: Path, scale: Scale, frames: Sequence[PlannedFrame]) -> None:
        self.folder = folder.resolve()
        self.root = self.folder / "data"
        self.state = self.folder / "state"
        self._masters = self.root / "masters"
        outputs = sum(frame.place == self.output_folder.parent.name for frame in frames)
        self._sizes = {
            self.output_folder: outputs * 2 * scale.frame_bytes + _MARGIN,  # the largest pixels have 8 bytes
            self.state: 2 * len(frames) * _JOB_BYTES + _MARGIN,
        }
        self._mounts: list[Path] = []
        self._bits_bind = False

    @property
    def output_folder(self) -> Path:
        """The folder of outputs that is disturbed."""
        return self.processed("mount")

    @property
    def kinds(self) -> Collection[Kind]:
        """What can be done here."""
        possible = {
            Kind.FILL_OUTPUT: self.output_folder in self._mounts,
            Kind.FILL_STATE: self.state in self._mounts,
            Kind.READ_ONLY: self.output_folder in self._mounts or self._bits_bind,
        }
        return tuple(kind for kind in Kind if possible.get(kind, True))

    def raw(self, place: str) -> Path:
        """Return where the detector writes."""
        return self.root / place / "raw"

    def processed(self, place: str) -> Path:
        """Return where the server writes."""
        return self.root / place / "processed"

    @property
    def mask(self) -> Path:
        """Where the mask is."""
        return self._masters / "mask.tif"

    def dark(self, run_uid: str) -> Path:
        """Return where the dark of a run will be."""
        return self._masters / f"dark-{run_uid}.tif"

    def corrections(self, frame: PlannedFrame) -> dict[str, Any] | None:
        """Return the corrections in the recipe of a frame."""
        if not frame.corrected or frame.run_uid is None:
            return None
        return {"dark": str(self.dark(frame.run_uid)), "mask": str(self.mask)}

    def half_written(self) -> bool:
        """Return whether an output is being written at this very moment."""
        return any(_half_written(folder) for place in PLACES for folder in (self.raw(place), self.processed(place)))

    def saved_logs(self) -> list[Path]:
        """Copy the server's log files to where they stay when the run is over, and return the copies."""
        return [Path(shutil.copy(path, self.folder)) for path in sorted(self.state.glob("logs/*"))]

    def fill(self, folder: Path) -> None:
        """Fill up the small disk at `folder` to the last byte."""
        with (folder / _FILLER).open("ab", buffering=0) as file:
            try:
                while file.write(_BLOCK):
                    pass
            except OSError:
                return

    def empty(self, folder: Path) -> None:
        """Make room again."""
        (folder / _FILLER).unlink(missing_ok=True)

    def close_output(self) -> None:
        """Make the disturbed output folder read-only."""
        self._writable("ro", 0o555)

    def open_output(self) -> None:
        """Make the disturbed output folder writable again."""
        self._writable("rw", 0o755)

    def _writable(self, option: str, mode: int) -> None:
        if self.output_folder not in self._mounts:
            self.output_folder.chmod(mode)
            return
        deadline = time.monotonic() + _PATIENCE
        while not _mount("-o", f"remount,{option}", str(self.output_folder)):  # busy as long as a file is being written
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.output_folder} can't be remounted {option}")
            time.sleep(0.01)

    def __enter__(self) -> Self:
        for place in PLACES:
            self.raw(place).mkdir(parents=True)
            self.processed(place).mkdir()
        self.state.mkdir()
        self._masters.mkdir()
        for folder, size in self._sizes.items():
            if _mount("-t", "tmpfs", "-o", f"size={size}", "chaos", str(folder)):
                self._mounts.append(folder)
        self.close_output()
        self._bits_bind = not os.access(self.output_folder, os.W_OK)  # root writes whatever the permission bits say
        self.open_output()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open_output()
        for folder in self._mounts:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)  # whoever still looks into it may go on
        shutil.rmtree(self.root)


def _half_written(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.name.endswith(TEMPORARY_SUFFIX) for entry in entries)


def _mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0
