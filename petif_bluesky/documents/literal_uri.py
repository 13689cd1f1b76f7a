"""How a stream resource names one file, so that consolidators find that very file. Pure."""

import posixpath

from petif_bluesky.documents.uris import is_windows

_NOT_OPENED = "#?"
_NOTHING = "{0!s:.0}"
"""A field of a format that leaves nothing, whatever the number."""
_ESCAPES = str.maketrans({"{": "{{" + _NOTHING, "}": "}}", "%": "%" + _NOTHING})


def literal_uri(path: str) -> tuple[str, str]:
    r"""Return `uri` and `template` of a stream resource for the file at `path`: absolute, with a drive, or on a share.

    All files of a host share one URI and have their whole path in the template: what consolidates the stream resources
    of a data key keeps the URI of the first one. The template is literal: it gives this path for every index. The path
    is not percent-encoded, because Tiled doesn't decode it. Tiled passes over the host of a share.

    >>> literal_uri("/data/a.tif"), literal_uri(r"X:\data\a.tif"), literal_uri(r"\\filer\share\a.tif")
    (('file://localhost/', 'data/a.tif'), ('file://localhost/', 'X:/data/a.tif'), ('file://filer/', 'share/a.tif'))

    Raises
    ------
    ValueError
        if no consolidator could lead to the file.

    """
    plain = path.replace("\\", "/") if is_windows(path) else path
    host, rest = plain[2:].partition("/")[::2] if plain.startswith("//") else ("localhost", plain)
    if not host or not rest or not (plain.startswith("/") or is_windows(path)):
        raise ValueError(
            f"{path}: found a path that no file URI can name; expected an absolute one (/..., X:... or a share)."
        )
    if found := sorted(set(_NOT_OPENED).intersection(plain)):
        raise ValueError(
            f"{path}: found {' and '.join(found)} in the path; Tiled cuts paths off there. Name the file otherwise."
        )
    return f"file://{host}/", posixpath.normpath(rest).lstrip("/").translate(_ESCAPES)
