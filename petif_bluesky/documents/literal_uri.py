"""Give a single file as a stream resource, so that consolidators find exactly that file. Pure."""

import posixpath

from petif_bluesky.documents.uris import is_windows

_NOT_OPENED = "#?"
_NOTHING = "{0!s:.0}"
"""A format field that expands to nothing for any number."""
_ESCAPES = str.maketrans({"{": "{{" + _NOTHING, "}": "}}", "%": "%" + _NOTHING})


def literal_uri(path: str) -> tuple[str, str]:
    r"""Return `uri` and `template` of a stream resource for the file at `path`: absolute, with a drive, or on a share.

    All files of a host share one URI and have their whole path in the template, because consolidators keep only the
    first URI of a data key. The template is literal: it gives this path for every index. The path is not
    percent-encoded, because Tiled does not decode it. Tiled ignores the host of a share.

    >>> literal_uri("/data/a.tif"), literal_uri(r"X:\data\a.tif"), literal_uri(r"\\filer\share\a.tif")
    (('file://localhost/', 'data/a.tif'), ('file://localhost/', 'X:/data/a.tif'), ('file://filer/', 'share/a.tif'))

    Raises
    ------
    ValueError
        if consolidators cannot find the file.

    """
    plain = path.replace("\\", "/") if is_windows(path) else path
    host, rest = plain[2:].partition("/")[::2] if plain.startswith("//") else ("localhost", plain)
    if not host or not rest or not (plain.startswith("/") or is_windows(path)):
        raise ValueError(f"{path}: no file URI: the path is not absolute. Use /..., X:... or a share.")
    if found := sorted(set(_NOT_OPENED).intersection(plain)):
        raise ValueError(f"{path}: Tiled cannot open paths with {' and '.join(found)}. Rename the file.")
    return f"file://{host}/", posixpath.normpath(rest).lstrip("/").translate(_ESCAPES)
