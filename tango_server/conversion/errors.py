r"""Everything that can go wrong with one frame.

::

    ConversionError
    +-- SourceError                 the file to convert
    |   +-- SourceMissingError          is not there
    |   +-- NotATiffError               is not a TIFF
    |   +-- NotEsperantoError           is not an ESPERANTO frame, or a damaged one
    |   +-- IncompleteFileError         ends before its structure does
    |   +-- UnsupportedImageError       holds an image without a unique conversion
    |   +-- SourceUnreadableError       cannot be opened or decoded
    |   \-- SourceChangedError          was replaced during its conversion in place
    +-- PathError                   the path of the source or of the output
    |   +-- OutsideRootsError           is outside the folders that the server may use
    |   +-- UnfitPathError              is relative, too long, or has control characters
    |   +-- UnmappedPathError           is a Windows path without a path map
    |   +-- NoOutputPathError           has no component that the path rule can replace
    |   \-- NameTemplateError           needs a field that the frame does not have
    +-- ExperimentError             the header of an ESPERANTO frame
    |   +-- ExperimentMissingError      lacks a value
    |   \-- ExperimentUnfitError        has a wrong value: a contradiction, an unknown unit, not a number
    +-- CorrectionError             the recipe's corrections
    |   +-- MasterMissingError          a dark, flat or mask is not there
    |   +-- MasterUnreadableError       a master cannot be read
    |   +-- MasterUnfitError            a master does not fit the frame
    |   +-- DarkMissingError            the run has no dark for the frame
    |   \-- AlreadyCorrectedError       the dark of the frame is already subtracted, or may be
    +-- GroupError                  the frames to combine
    |   +-- GroupIncompleteError        some are missing or failed
    |   \-- GroupUnfitError             do not fit together
    \-- OutputError                 the file to write
        +-- OutputExistsError           exists and may not be replaced
        +-- ConvertedDifferentlyError   was already converted in place with another recipe
        +-- PlaceholderInPlaceError     would be a placeholder in place of the raw frame
        \-- OutputWriteError            cannot be written

Each message names the file, the problem and what to do.
"""

import os
from collections.abc import Mapping

from tango_server.text import printable

_LONGEST_PATH = 1_000
_LONGEST_PROBLEM = 2_000


class ConversionError(Exception):
    """A frame cannot be converted. The parts of the message are attributes: `path: problem. advice`.

    The arguments are positional so that the error can be pickled between processes.
    """

    def __init__(self, path: str | os.PathLike[str], problem: str, advice: str) -> None:
        super().__init__(os.fspath(path), problem, advice)
        self.path = os.fspath(path)
        self.problem = problem
        self.advice = advice

    def __str__(self) -> str:
        return f"{printable(self.path, _LONGEST_PATH)}: {printable(self.problem, _LONGEST_PROBLEM)}. {self.advice}"


class SourceError(ConversionError):
    """The file to convert is the problem."""


class SourceMissingError(SourceError):
    """The file to convert does not exist."""


class NotATiffError(SourceError):
    """The file is not a TIFF."""


class NotEsperantoError(SourceError):
    """The file is not an ESPERANTO frame, or a damaged one."""


class IncompleteFileError(SourceError):
    """The file ends before its structure does."""


class UnsupportedImageError(SourceError):
    """The file holds an image without a unique conversion."""


class SourceUnreadableError(SourceError):
    """The file cannot be opened or decoded."""


class SourceChangedError(SourceError):
    """The file was replaced during its conversion in place."""


class PathError(ConversionError):
    """The path of the source or of the output is the problem."""


class OutsideRootsError(PathError):
    """A path is outside the folders that may be read or written."""


class UnfitPathError(PathError):
    """A path is relative, too long, or has control characters."""


class UnmappedPathError(PathError):
    """A Windows path that no path map translates into a path of this host."""


class NoOutputPathError(PathError):
    """The path rule finds no component to replace."""


class NameTemplateError(PathError):
    """The template of the output's name needs a field that the frame lacks, or gives an invalid file name."""


class ExperimentError(ConversionError):
    """The header values of an ESPERANTO frame are the problem."""


class ExperimentMissingError(ExperimentError):
    """Values are missing; `in_sidecar`: QXRD's sidecar might still provide some of them."""

    def __init__(self, path: str | os.PathLike[str], problem: str, advice: str, *, in_sidecar: bool = False) -> None:
        super().__init__(path, problem, advice)
        self.in_sidecar = in_sidecar


class ExperimentUnfitError(ExperimentError):
    """A value is wrong."""


class CorrectionError(ConversionError):
    """The recipe's corrections are the problem."""


class MasterMissingError(CorrectionError):
    """A dark, flat or mask does not exist."""


class MasterUnreadableError(CorrectionError):
    """A master cannot be read, or is not an image."""


class MasterUnfitError(CorrectionError):
    """A master does not fit the frame: another shape, exposure or gain, zeros in a flat, a mask that hides all."""


class DarkMissingError(CorrectionError):
    """The run has no dark for the frame."""


class AlreadyCorrectedError(CorrectionError):
    """The dark of the frame is already subtracted, or may be: its sidecar is missing."""


class GroupError(ConversionError):
    """The frames to combine are the problem."""


class GroupIncompleteError(GroupError):
    """Frames of a group are missing, or failed: `members` says why, by their number in the group."""

    def __init__(
        self, path: str | os.PathLike[str], problem: str, advice: str, members: Mapping[int, str] | None = None
    ) -> None:
        super().__init__(path, problem, advice)
        self.members = dict(members or {})
        self.args = (*self.args, self.members)


class GroupNotReadyError(GroupIncompleteError):
    """Files of frames of a group are missing or not complete, or were replaced; they may be complete soon."""


class GroupUnfitError(GroupError):
    """Frames of a group do not fit together: other shapes, types, exposures, angles with gaps; too many, or none."""


class OutputError(ConversionError):
    """The file to write is the problem."""


class OutputExistsError(OutputError):
    """The output exists and may not be replaced."""


class ConvertedDifferentlyError(OutputError):
    """A file to convert in place was already converted with another recipe."""


class PlaceholderInPlaceError(OutputError):
    """A placeholder would take the place of the raw frame."""


class OutputWriteError(OutputError):
    """The output cannot be written."""

    @property
    def may_pass(self) -> bool:
        """Whether the operating system refused it (a full disk, say), so that a retry may succeed.

        Only known in the process that raised the error: its cause is not pickled.
        """
        return isinstance(self.__cause__, OSError)
