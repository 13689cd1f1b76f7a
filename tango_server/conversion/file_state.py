"""Whether a file, or one frame in it, is complete, and how that was proven."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tango_server.conversion.errors import IncompleteFileError, SourceUnreadableError

State = Literal["complete", "incomplete", "damaged"]
"""`incomplete` files may still become complete, `damaged` ones never do."""


@dataclass(frozen=True, slots=True)
class FileState:
    """The state of a file, or of one frame in it.

    Parameters
    ----------
    state, problem: whether it is complete, and why not
    size, mtime_ns, inode: of the file (bytes, ns); of a frame in several files, of what changes when one of them does
    proof: how its completeness was proven, for people; empty if only the stillness of the file can tell
    frames: the number of frames in a file that is converted frame by frame; None for a file that is one frame
    sidecar_expected: whether it is a file as QXRD writes it, so that a sidecar follows

    """

    state: State
    problem: str = ""
    size: int = 0
    mtime_ns: int = 0
    inode: int = 0
    proof: str = ""
    frames: int | None = None
    sidecar_expected: bool = False

    @property
    def identity(self) -> tuple[int, int, int]:
        """Inode, size and modification time: a file with the same ones is unchanged."""
        return self.inode, self.size, self.mtime_ns

    def require_complete(self, path: Path) -> None:
        """Raise the typed error if the file is not complete."""
        if self.state == "damaged":
            raise SourceUnreadableError(path, f"damaged file: {self.problem}", "Check what wrote this file.")
        if self.state == "incomplete":
            raise IncompleteFileError(
                path,
                f"incomplete file: {self.problem}",
                "If it is no longer being written, it was cut off: copy it again from its origin.",
            )
