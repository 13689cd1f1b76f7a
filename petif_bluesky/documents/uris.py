r"""Where files are, as documents write it: URIs, roots and folders, of POSIX and of Windows. No file is looked at.

>>> path_of_uri("file://localhost/data/my%20sample/"), path_of_uri("file://localhost/data/50% #1/")
('/data/my sample/', '/data/50% #1/')
>>> path_of_uri("file:///C:/raw/"), path_of_uri("file://filer/share/raw/")
('C:/raw/', '\\\\filer\\share\\raw/')
"""

import ntpath
import posixpath
import re
from urllib.parse import unquote

_TIFF = (".tif", ".tiff")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # two letters at least: C:/ is a drive
_FILE = re.compile(r"file:(?://(?P<host>[^/]*))?(?P<path>/.*)", re.IGNORECASE | re.DOTALL)
_ENCODED = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
_DRIVE = re.compile(r"[A-Za-z]:")
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")


def is_tiff(name: str) -> bool:
    """Tell whether a name ends as those of TIFFs do."""
    return name.lower().endswith(_TIFF)


def is_windows(path: str) -> bool:
    """Tell whether a path begins with a drive or is a share of Windows."""
    return _WINDOWS.match(path) is not None


def folder_of(root: str, path: str, *, windows: bool) -> str:
    """Return the folder of a resource, with a separator at its end."""
    return _joined(root, path, "", windows=windows)


def stem_of(root: str, path: str, *, windows: bool) -> str:
    """Return root and path of a resource as one."""
    return _joined(root, path, windows=windows)


def _joined(root: str, *names: str, windows: bool) -> str:
    r"""Join names as their machine does.

    ophyd tells the `path_semantics` of the detector's PC. Where it has a read path of its own, as beamlines with a
    Windows PC give it, root and path are those of the host that reads, and the slash at their beginning says so:

    >>> _joined("/", "gpfs/raw", "", windows=True), _joined("Z:\\", "raw", "", windows=True)
    ('/gpfs/raw/', 'Z:\\raw\\')
    """
    start = next(filter(None, (root, *names)), "")
    join = ntpath.join if windows and not start.startswith("/") else posixpath.join
    return join(root, *names)


def path_of_uri(uri: str) -> str | None:
    """Return the path that a URI stands for, None if it stands for no file.

    Many writers put a path into a URI as it is. A URI that has a character which could not be there if it was
    percent-encoded is taken as it is, another one is decoded. `#` and `?` belong to the name. Another host than this
    one is the server of a share, as Windows writes it.
    """
    match = _FILE.fullmatch(uri)
    if match is None:
        return None if _SCHEME.match(uri) else uri
    path: str = match["path"]
    if _ENCODED.fullmatch(path):
        path = unquote(path)
    host = match["host"] or ""
    if host.lower() not in {"", "localhost", "127.0.0.1", "."}:
        server_path = path.lstrip("/").replace("/", "\\", 1)
        return f"\\\\{host}\\{server_path}"
    return path[1:] if _DRIVE.match(path, 1) else path


def tidy(path: str) -> str:
    """Return a path without doubled slashes; the two with which a share begins stay."""
    if is_windows(path):
        return path[:2] + re.sub(r"([\\/])[\\/]+", r"\1", path[2:])
    return re.sub("/{2,}", "/", path)


def sameness(path: str) -> str:
    r"""Return what is equal for two ways to write one path.

    >>> sameness("C:/Raw//a.tif") == sameness("c:\\raw\\A.TIF"), sameness("/a//b") == sameness("/a/b")
    (True, True)
    """
    if is_windows(path):
        return tidy(path.replace("/", "\\")).lower()
    return tidy(path)


def name_of(path: str) -> str:
    """Return the last name of a path."""
    return ntpath.basename(path) if is_windows(path) else posixpath.basename(path)


def beside(path: str, name: str) -> str:
    """Return the path of the file `name` in the folder of `path`."""
    return path[: len(path) - len(name_of(path))] + name
