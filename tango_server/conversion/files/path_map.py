r"""How a client's paths are called on this host: `Y:\scan\a.tif` of the detector PC is `/gpfs/current/scan/a.tif` here.

>>> paths = PathMap.of([r"Y:\ -> /gpfs/current", r"\\filer\home -> /home", "/mnt/detector -> /gpfs/current/raw"])
>>> paths.translate(r"y:\Raw\CeO2\a.tif")
'/gpfs/current/Raw/CeO2/a.tif'
>>> paths.translate(r"\\FILER\Home\ann\a.tif"), paths.translate("//filer/home/ann/a.tif")
('/home/ann/a.tif', '/home/ann/a.tif')
>>> paths.translate("/mnt/detector/a.tif"), paths.translate("/mnt/detector-2/a.tif")
('/gpfs/current/raw/a.tif', '/mnt/detector-2/a.tif')

It is text in, text out; whether the result may be touched, others decide.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath, PurePosixPath, PureWindowsPath

from tango_server.conversion.errors import UnfitPathError, UnmappedPathError
from tango_server.text import printable

_LONG_FORM = re.compile(r"^[\\/]{2}\?[\\/](UNC[\\/])?", re.IGNORECASE)
_DOUBLED = re.compile(r"(?<=[^\\/])[\\/]+")
_WINDOWS_HOST = os.name == "nt"

Rule = tuple[str, str]
"""A prefix and the folder of this host that it stands for."""


@dataclass(frozen=True, slots=True)
class PathMap:
    """Prefixes of paths and what they are here; the longest that fits holds.

    Prefixes of Windows (drives and shares) fit in any case and with both separators, on the borders of names only.

    Raises
    ------
    ValueError
        if a prefix or a folder is not absolute, a prefix occurs twice, or a result would be translated again.
    """

    rules: tuple[Rule, ...] = ()
    _parsed: dict[PurePath, Rule] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parsed: dict[PurePath, Rule] = {}
        for prefix, folder in self.rules:
            start, end = absolute(prefix), absolute(folder)
            if start is None:
                raise ValueError(
                    rf"found the prefix {prefix!r}; expected a drive, a share or an absolute path, as Y:\, "
                    r"\\server\share or /mnt/detector"
                )
            if start in parsed:
                raise ValueError(
                    f"found the prefixes {parsed[start][0]!r} and {prefix!r}, which are one; keep one of them"
                )
            if end is None or ".." in end.parts:
                raise ValueError(f"found {folder!r} for {prefix!r}; expected the whole path of a folder of this host")
            parsed[start] = prefix, folder
        object.__setattr__(self, "_parsed", parsed)
        for prefix, folder in self.rules:
            if self._match(folder):
                raise ValueError(
                    f"found {folder!r} for {prefix!r}, which would be translated again; expected a folder that begins "
                    "with none of the prefixes"
                )

    @classmethod
    def of(cls, rules: Mapping[str, str] | Iterable[str | Rule]) -> "PathMap":
        r"""Return the map of a table, or of lines `PREFIX -> FOLDER`.

        >>> PathMap.of({"Y:\\": "/gpfs/current"}) == PathMap.of([r"Y:\ -> /gpfs/current"])
        True
        """
        if isinstance(rules, Mapping):
            return cls(tuple(rules.items()))
        return cls(tuple(rule_of(rule) if isinstance(rule, str) else rule for rule in rules))

    def translate(self, path: str, *, windows_host: bool = _WINDOWS_HOST) -> str:
        r"""Return what a client's `path` is called here; a path that no prefix fits stays as it is.

        Raises
        ------
        UnmappedPathError
            if it is a path of Windows that no prefix fits, and this host is none.
        UnfitPathError
            if a translated path has a `..` in it: what that means depends on the machine.

        >>> PathMap.of([r"Y:\ -> /gpfs/current"]).translate(r"Y:\..\..\etc\passwd")
        Traceback (most recent call last):
        ...
        tango_server.conversion.errors.UnfitPathError: Y:\..\..\etc\passwd: '..' in it; expected ...
        """
        match = self._match(path)
        if match is None:
            if not windows_host and (path.startswith("\\") or PureWindowsPath(path).drive[1:] == ":"):
                raise self._unmapped(path)
            return path
        folder, rest = match
        if ".." in rest.parts:
            raise UnfitPathError(printable(path), "'..' in it", "the way without it", "Give the path as it really is.")
        return "/".join((folder.rstrip("/\\"), *rest.parts)) or "/"

    def _match(self, path: str) -> tuple[str, PurePath] | None:
        """Return the folder of the longest prefix that fits, and the rest of the path."""
        whole = absolute(path) if self.rules else None
        if whole is None:
            return None
        for start in (whole, *whole.parents):
            if start in self._parsed:
                return self._parsed[start][1], whole.relative_to(start)
        return None

    def _unmapped(self, path: str) -> UnmappedPathError:
        known = ", ".join(prefix for prefix, _ in self.rules)
        return UnmappedPathError(
            printable(path),
            "a path of a Windows machine",
            f"one that begins with {known}, or one of this host" if known else "a path of this host",
            r"Check the drive, or let the server's path_maps say what it is here, as Y:\ -> /gpfs/current.",
        )


def absolute(path: str) -> PurePath | None:
    r"""Return an absolute path as its machine reads it, without the mark of Windows' long form; None for other paths.

    A drive or a share is of Windows, where names compare in any case; on POSIX a backslash is a character of a name.

    >>> absolute(r"\\?\UNC\Server\Share\a"), absolute("y:/A"), absolute("/A"), absolute("Y:a")
    (PureWindowsPath('//Server/Share/a'), PureWindowsPath('y:/A'), PurePosixPath('/A'), None)
    """
    short = _LONG_FORM.sub(lambda mark: "\\\\" if mark[1] else "", path, count=1)
    windows = PureWindowsPath(_DOUBLED.sub(r"\\", short) + "\\")
    server, _, share = windows.drive.lstrip("\\").partition("\\")
    if windows.root and (windows.drive[1:] == ":" or (share and server[0] not in ".?")):
        return windows
    return PurePosixPath("/" + path.lstrip("/")) if path.startswith("/") else None


def rule_of(line: str) -> Rule:
    """Return the prefix and the folder of a line `PREFIX -> FOLDER`."""
    prefix, arrow, folder = (part.strip() for part in line.partition("->"))
    if not (prefix and arrow and folder):
        raise ValueError(rf"found {line!r}; expected PREFIX -> FOLDER, as Y:\ -> /gpfs/current")
    return prefix, folder
