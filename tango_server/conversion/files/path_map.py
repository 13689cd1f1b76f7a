r"""Translate paths of clients: `Y:\scan\a.tif` of the detector PC is `/gpfs/current/scan/a.tif` on this host.

>>> paths = PathMap.of([r"Y:\ -> /gpfs/current", r"\\filer\home -> /home", "/mnt/detector -> /gpfs/current/raw"])
>>> paths.translate(r"y:\Raw\CeO2\a.tif")
'/gpfs/current/Raw/CeO2/a.tif'
>>> paths.translate(r"\\FILER\Home\ann\a.tif"), paths.translate("//filer/home/ann/a.tif")
('/home/ann/a.tif', '/home/ann/a.tif')
>>> paths.translate("/mnt/detector/a.tif"), paths.translate("/mnt/detector-2/a.tif")
('/gpfs/current/raw/a.tif', '/mnt/detector-2/a.tif')

A data set in an HDF5 file is kept as it is:

>>> paths.translate(r"Y:\scan\run.h5::/entry/data")
'/gpfs/current/scan/run.h5::/entry/data'

Text in, text out: whether the result may be read is checked elsewhere.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath, PurePosixPath, PureWindowsPath

from tango_server.conversion.errors import UnfitPathError, UnmappedPathError
from tango_server.text import printable, split_data_set

_LONG_FORM = re.compile(r"^[\\/]{2}\?[\\/](UNC[\\/])?", re.IGNORECASE)
_DOUBLED = re.compile(r"(?<=[^\\/])[\\/]+")
_WINDOWS_HOST = os.name == "nt"

Rule = tuple[str, str]
"""A prefix and its folder on this host."""


@dataclass(frozen=True, slots=True)
class PathMap:
    """Prefixes of paths and their folders here; the longest match wins.

    Windows prefixes (drives and shares) match in any case, with both separators, and whole names only.

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
                    rf"invalid prefix {prefix!r}: give a drive, a share or an absolute path, such as Y:\, "
                    r"\\server\share or /mnt/detector"
                )
            if start in parsed:
                raise ValueError(f"the prefixes {parsed[start][0]!r} and {prefix!r} are the same; keep one of them")
            if end is None or ".." in end.parts:
                raise ValueError(f"invalid folder {folder!r} for {prefix!r}: give an absolute path of this host")
            parsed[start] = prefix, folder
        object.__setattr__(self, "_parsed", parsed)
        for prefix, folder in self.rules:
            if self._match(folder):
                raise ValueError(
                    f"the folder {folder!r} for {prefix!r} would be translated again: it must not begin with a prefix"
                )

    @classmethod
    def of(cls, rules: Mapping[str, str] | Iterable[str | Rule]) -> "PathMap":
        r"""Return the map for a table, or for lines `PREFIX -> FOLDER`.

        >>> PathMap.of({"Y:\\": "/gpfs/current"}) == PathMap.of([r"Y:\ -> /gpfs/current"])
        True
        """
        if isinstance(rules, Mapping):
            return cls(tuple(rules.items()))
        return cls(tuple(rule_of(rule) if isinstance(rule, str) else rule for rule in rules))

    def translate(self, path: str, *, windows_host: bool = _WINDOWS_HOST) -> str:
        r"""Return the path on this host of a client's `path`; without a matching prefix it is unchanged.

        Raises
        ------
        UnmappedPathError
            if it is a Windows path without a matching prefix, and this host does not run Windows.
        UnfitPathError
            if a path to translate contains `..`, whose meaning depends on the machine.

        >>> PathMap.of([r"Y:\ -> /gpfs/current"]).translate(r"Y:\..\..\etc\passwd")
        Traceback (most recent call last):
        ...
        tango_server.conversion.errors.UnfitPathError: Y:\..\..\etc\passwd: the path contains '..'. ...
        """
        file, data_set = split_data_set(path)
        match = self._match(file)
        if match is None:
            if not windows_host and (file.startswith("\\") or PureWindowsPath(file).drive[1:] == ":"):
                raise self._unmapped(path)
            return path
        folder, rest = match
        if ".." in rest.parts:
            raise UnfitPathError(printable(path), "the path contains '..'", "Give the path without it.")
        here = "/".join((folder.rstrip("/\\"), *rest.parts)) or "/"
        return f"{here}::{data_set}" if data_set else here

    def _match(self, path: str) -> tuple[str, PurePath] | None:
        """Return the folder of the longest matching prefix, and the rest of the path."""
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
            "a Windows path" + (f" that begins with none of {known}" if known else " without a path map"),
            r"Check the drive, or add it to the server's path_maps, for example Y:\ -> /gpfs/current.",
        )


def absolute(path: str) -> PurePath | None:
    r"""Return an absolute path by the rules of its machine, without the mark of Windows' long form; None for others.

    A drive or a share means Windows, where case is ignored; on POSIX a backslash is a character of a name.

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
        raise ValueError(rf"invalid line {line!r}: write PREFIX -> FOLDER, for example Y:\ -> /gpfs/current")
    return prefix, folder
