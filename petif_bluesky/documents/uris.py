r"""Paths in documents: URIs, roots and folders, for POSIX and Windows. No file is accessed.

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
_OTHER_IMAGES = (".cbf", ".edf", ".mccd")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # at least two letters: C:/ is a drive
_FILE = re.compile(r"file:(?://(?P<host>[^/]*))?(?P<path>/.*)", re.IGNORECASE | re.DOTALL)
_ENCODED = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
_DRIVE = re.compile(r"[A-Za-z]:")
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")


def is_tiff(name: str) -> bool:
    """Return whether a name has the extension of a TIFF file."""
    return name.lower().endswith(_TIFF)


def is_other_image(name: str) -> bool:
    """Return whether a name has the extension of a CBF, EDF or MarCCD file."""
    return name.lower().endswith(_OTHER_IMAGES)


def is_windows(path: str) -> bool:
    """Return whether a path starts with a drive letter or is a Windows share."""
    return _WINDOWS.match(path) is not None


def folder_of(root: str, path: str, *, windows: bool) -> str:
    """Return the folder of a resource, with a trailing separator."""
    return _joined(root, path, "", windows=windows)


def stem_of(root: str, path: str, *, windows: bool) -> str:
    """Return the full path of a resource from its root and path."""
    return _joined(root, path, windows=windows)


def _joined(root: str, *names: str, windows: bool) -> str:
    r"""Join names in the style of their operating system.

    ophyd's `path_semantics` is that of the detector PC. If the device has a separate read path, as at beamlines with a
    Windows PC, root and path are those of the reading host, which is recognised by the leading slash:

    >>> _joined("/", "gpfs/raw", "", windows=True), _joined("Z:\\", "raw", "", windows=True)
    ('/gpfs/raw/', 'Z:\\raw\\')
    """
    start = next(filter(None, (root, *names)), "")
    join = ntpath.join if windows and not start.startswith("/") else posixpath.join
    return join(root, *names)


def path_of_uri(uri: str) -> str | None:
    """Return the path of a URI, None if it is not a file URI.

    Many writers do not percent-encode paths. A URI with a character that encoding would have replaced is used as it is,
    any other is decoded. `#` and `?` belong to the name. A host other than localhost is the server of a Windows share.
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
    """Return a path without double slashes, except the two at the start of a share."""
    if is_windows(path):
        return path[:2] + re.sub(r"([\\/])[\\/]+", r"\1", path[2:])
    return re.sub("/{2,}", "/", path)


def normalized(path: str) -> str:
    r"""Return a normal form, equal for two spellings of the same path.

    >>> normalized("C:/Raw//a.tif") == normalized("c:\\raw\\A.TIF"), normalized("/a//b") == normalized("/a/b")
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
