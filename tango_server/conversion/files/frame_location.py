"""Where a frame is: a file, and for one of several frames the data set and the index in it."""

from dataclasses import dataclass, field
from pathlib import Path

from tango_server.text import split_data_set


@dataclass(frozen=True, slots=True)
class FrameLocation:
    """One frame, or with `index=None` a whole file.

    >>> FrameLocation.of("/data/run.h5::/entry/data", 7)
    FrameLocation(file=PosixPath('/data/run.h5'), data_set='/entry/data', index=7, modules=None)
    >>> FrameLocation.of("/data/run.h5::/entry/data", 7).stem
    'run_00007'

    Parameters
    ----------
    file: its path
    data_set: in an HDF5 file; empty for the one that is found by the rules of the format
    index: counted from 0, in a file of several frames
    modules: how many modules a Lambda detector has, if the settings say so
    proven: inode, size and modification time of the file when it was checked as a whole, which need not be repeated

    """

    file: Path
    data_set: str = ""
    index: int | None = None
    modules: int | None = None
    proven: tuple[int, int, int] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, source: str | Path, index: int | None = None) -> "FrameLocation":
        """Return the location that a path, with `::/data/set` for HDF5, and an index name."""
        file, data_set = split_data_set(str(source))
        return cls(Path(file), data_set, index)

    @property
    def path(self) -> str:
        """The path with its data set, as in requests and reports."""
        return f"{self.file}::{self.data_set}" if self.data_set else str(self.file)

    @property
    def stem(self) -> str:
        """The stem of the output's name."""
        return self.file.stem if self.index is None else f"{self.file.stem}_{self.index:05d}"

    @property
    def name(self) -> str:
        """The name of the file, with data set and index if it has several frames."""
        if self.index is None:
            return self.file.name
        return f"{self.file.name}{'::' if self.data_set else ''}{self.data_set} frame {self.index}"

    def about(self, problem: str) -> str:
        """Return a message that starts with the file as one that starts with the frame.

        >>> FrameLocation.of("/data/run.h5", 7).about("/data/run.h5: cannot be read")
        '/data/run.h5 frame 7: cannot be read'
        """
        file = f"{self.file}: "
        return f"{self}: {problem.removeprefix(file)}" if problem.startswith(file) else problem

    def __str__(self) -> str:
        return self.path if self.index is None else f"{self.path} frame {self.index}"
