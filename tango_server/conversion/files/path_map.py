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
from dataclasses import dataclass

from tango_server.conversion.errors import UnfitPathError, UnmappedPathError
from tango_server.text import printable

_DRIVE = re.compile(r"[A-Za-z]:(?![^\\/])")  # with a separator or nothing after it: Y:a.tif depends on a working folder
_LONG_FORM = re.compile(r"[\\/]{2}\?[\\/](UNC[\\/])?", re.IGNORECASE)
_SHARE = re.compile(r"[\\/]{2}(?![\\/?.])")
_WINDOWS = re.compile(r"[A-Za-z]:|\\")
_SEPARATORS = re.compile(r"[\\/]+")
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

    def __post_init__(self) -> None:
        seen: dict[tuple[str, ...], str] = {}
        for prefix, folder in self.rules:
            names = _comparable(prefix)
            if names is None:
                raise ValueError(
                    rf"found the prefix {prefix!r}; expected a drive, a share or an absolute path, as Y:\, "
                    r"\\server\share or /mnt/detector"
                )
            if names in seen:
                raise ValueError(f"found the prefixes {seen[names]!r} and {prefix!r}, which are one; keep one of them")
            seen[names] = prefix
            if _comparable(folder) is None or ".." in _names(folder):
                raise ValueError(f"found {folder!r} for {prefix!r}; expected the whole path of a folder of this host")
        for prefix, folder in self.rules:
            if self._fitting(folder):
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
        return cls(tuple(_rule(rule) if isinstance(rule, str) else rule for rule in rules))

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
        fitting = self._fitting(path)
        if not fitting:
            if not windows_host and _WINDOWS.match(path):
                raise self._unmapped(path)
            return path
        length, folder = max(fitting)
        rest = _names(path)[length - 1 :]
        if ".." in rest:
            raise UnfitPathError(printable(path), "'..' in it", "the way without it", "Give the path as it really is.")
        return "/".join((folder.rstrip("/\\"), *rest)) or "/"

    def _fitting(self, path: str) -> list[tuple[int, str]]:
        """Return for each prefix that fits how long it is, and its folder."""
        names = _comparable(path) if self.rules else None
        if names is None:
            return []
        prefixes = [(_comparable(prefix) or (), folder) for prefix, folder in self.rules]
        return [(len(prefix), folder) for prefix, folder in prefixes if names[: len(prefix)] == prefix]

    def _unmapped(self, path: str) -> UnmappedPathError:
        known = ", ".join(prefix for prefix, _ in self.rules)
        return UnmappedPathError(
            printable(path),
            "a path of a Windows machine",
            f"one that begins with {known}, or one of this host" if known else "a path of this host",
            r"Check the drive, or let the server's path_maps say what it is here, as Y:\ -> /gpfs/current.",
        )


def is_whole(path: str) -> bool:
    r"""Tell whether a path is absolute, on whatever machine it is one: of a drive, a share, or of POSIX.

    >>> is_whole(r"Z:\raw"), is_whole(r"\\filer\raw"), is_whole("/raw"), is_whole("raw/a.tif")
    (True, True, True, False)
    """
    return _comparable(path) is not None


def name_of(path: str) -> str:
    r"""Return the last name of an absolute path; on POSIX a backslash is a character of a name.

    >>> name_of(r"Z:\raw\a.tif"), name_of("/raw/a.tif"), name_of(r"/raw/a\b.tif")
    ('a.tif', 'a.tif', 'a\\b.tif')
    """
    return _names(path)[-1]


def _rule(line: str) -> Rule:
    prefix, arrow, folder = (part.strip() for part in line.partition("->"))
    if not (prefix and arrow and folder):
        raise ValueError(rf"found {line!r}; expected PREFIX -> FOLDER, as Y:\ -> /gpfs/current")
    return prefix, folder


def _comparable(path: str) -> tuple[str, ...] | None:
    r"""Return what tells an absolute path's machine and names, in one case on Windows; None for other paths.

    >>> _comparable(r"\\?\UNC\Server\Share\a"), _comparable("y:/A"), _comparable("/A"), _comparable(r"Y:a")
    (('share', 'server', 'share', 'a'), ('drive', 'y:', 'a'), ('path', 'A'), None)
    """
    short = _short(path)
    if _DRIVE.match(short):
        return ("drive", *(name.lower() for name in _names(short)))
    if _SHARE.match(short) and len(_names(short)) > 1:
        return ("share", *(name.lower() for name in _names(short)))
    return ("path", *_names(path)) if path.startswith("/") else None


def _short(path: str) -> str:
    r"""Return a path of Windows without the mark of its long form, as in `\\?\C:\...` and `\\?\UNC\server\...`."""
    mark = _LONG_FORM.match(path)
    if mark is None:
        return path
    return ("\\\\" if mark[1] else "") + path[mark.end() :]


def _names(path: str) -> list[str]:
    """Return the names in a path; on POSIX a backslash is a character of a name."""
    short = _short(path)
    separators = _SEPARATORS if _WINDOWS.match(short) or _SHARE.match(short) else re.compile("/+")
    return [name for name in separators.split(short) if name not in {"", "."}]
