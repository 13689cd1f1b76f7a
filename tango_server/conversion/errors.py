r"""Everything that can go wrong with one frame.

::

    ConversionError
    +-- SourceError                 the file to convert
    |   +-- SourceMissingError          is not there
    |   +-- NotATiffError               is something else
    |   +-- NotEsperantoError           is no ESPERANTO frame where one is to be read, or a damaged one
    |   +-- IncompleteFileError         ends before its structure says so
    |   +-- UnsupportedImageError       holds an image that has no single right conversion
    |   +-- SourceUnreadableError       can't be opened or decoded
    |   \-- SourceChangedError          was replaced while it was being converted in place
    +-- PathError                   where it lies or would go
    |   +-- OutsideRootsError           beyond the folders that the server may touch
    |   +-- UnfitPathError              no path that a server takes: relative, too long, with control characters
    |   +-- UnmappedPathError           a path of a Windows machine that no path map translates
    |   +-- NoOutputPathError           the path rule finds no component to replace
    |   \-- NameTemplateError           the template of the output's name asks for what the frame lacks
    +-- ExperimentError             what an ESPERANTO frame says beside its pixels
    |   +-- ExperimentMissingError      is found nowhere
    |   \-- ExperimentUnfitError        can't be right: a contradiction, an unknown unit, no number
    \-- OutputError                 the file to write
        +-- OutputExistsError           there is one already that is not ours to replace
        +-- ConvertedDifferentlyError   in place: already converted, with another recipe
        +-- PlaceholderInPlaceError     zeros would stand where the detector writes
        \-- OutputWriteError            the disk or the folder refuses it

Each names the file, what was found, what was expected, and what to do.
"""

import os

from tango_server.text import printable

_LONGEST_PATH = 1_000
_LONGEST_FINDING = 2_000


class ConversionError(Exception):
    """A frame can't be converted; the parts of the message are attributes.

    The arguments stay positional so that the error survives the pickling between processes.
    """

    def __init__(self, path: str | os.PathLike[str], found: str, expected: str, advice: str) -> None:
        super().__init__(os.fspath(path), found, expected, advice)
        self.path = os.fspath(path)
        self.found = found
        self.expected = expected
        self.advice = advice

    def __str__(self) -> str:
        found = printable(self.found, _LONGEST_FINDING)
        return f"{printable(self.path, _LONGEST_PATH)}: {found}; expected {self.expected}. {self.advice}"


class SourceError(ConversionError):
    """The file to convert is at fault."""


class SourceMissingError(SourceError):
    """The file to convert is not there."""


class NotATiffError(SourceError):
    """The file is not a TIFF."""


class NotEsperantoError(SourceError):
    """The file is no ESPERANTO frame, or a damaged one."""


class IncompleteFileError(SourceError):
    """The file ends before its structure says so."""


class UnsupportedImageError(SourceError):
    """The file holds an image that has no single right conversion."""


class SourceUnreadableError(SourceError):
    """The file can't be opened or decoded."""


class SourceChangedError(SourceError):
    """The file to convert in place was replaced meanwhile."""


class PathError(ConversionError):
    """The place of the source or of the output is at fault."""


class OutsideRootsError(PathError):
    """A path lies beyond the folders that may be read or written."""


class UnfitPathError(PathError):
    """A path is none that a server takes: it is relative, too long, or holds control characters."""


class UnmappedPathError(PathError):
    """A path of a Windows machine that no path map translates into one of this host."""


class NoOutputPathError(PathError):
    """The path rule finds no component to replace."""


class NameTemplateError(PathError):
    """The template of the output's name asks for a field that the frame lacks, or makes no file name."""


class ExperimentError(ConversionError):
    """What an ESPERANTO frame says beside its pixels is at fault."""


class ExperimentMissingError(ExperimentError):
    """Something is found nowhere; `in_sidecar`: QXRD's sidecar might still bring some of it."""

    def __init__(
        self, path: str | os.PathLike[str], found: str, expected: str, advice: str, *, in_sidecar: bool = False
    ) -> None:
        super().__init__(path, found, expected, advice)
        self.in_sidecar = in_sidecar


class ExperimentUnfitError(ExperimentError):
    """Something is found that can't be right."""


class OutputError(ConversionError):
    """The file to write is at fault."""


class OutputExistsError(OutputError):
    """There is a file already that is not ours to replace."""


class ConvertedDifferentlyError(OutputError):
    """A file to convert in place was already converted with another recipe."""


class PlaceholderInPlaceError(OutputError):
    """A placeholder would stand where the detector writes."""


class OutputWriteError(OutputError):
    """The disk or the folder refuses the output."""

    @property
    def may_pass(self) -> bool:
        """Whether the operating system refused it, as with a full disk; else nothing changes by itself.

        It is known where the error was raised only: what caused an error does not travel between processes.
        """
        return isinstance(self.__cause__, OSError)
