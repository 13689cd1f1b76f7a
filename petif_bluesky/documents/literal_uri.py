"""How a stream resource names one converted file, so that consolidators find that very file. Pure."""

import posixpath
import re

_URI = "file://localhost/"
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_NOT_OPENED = "#?"
_NOTHING = "{0!s:.0}"  # `format` makes nothing of it, whatever the number


def literal_uri(path: str) -> tuple[str, str]:
    """Return `uri` and `template` of a stream resource for the file at `path` (absolute, POSIX or with a drive).

    All files share one URI and have their whole path in the template: what consolidates the stream resources of a data
    key keeps the URI of the first one. The template is literal: it gives this path for every index. The path is not
    percent-encoded, because Tiled doesn't decode it.

    Raises
    ------
    ValueError
        if no consolidator could lead to the file.

    """
    drive = _DRIVE.match(path) is not None
    plain = path.replace("\\", "/") if drive else path
    if not drive and (not plain.startswith("/") or plain.startswith("//")):
        raise ValueError(f"{path}: found a path that no file URI can name; expected an absolute one (/... or X:...).")
    if found := sorted(set(_NOT_OPENED).intersection(plain)):
        raise ValueError(
            f"{path}: found {' and '.join(found)} in the path; Tiled cuts paths off there. Name the file otherwise."
        )
    literal = posixpath.normpath(plain).lstrip("/").replace("{", "{{").replace("}", "}}")
    return _URI, literal.replace("%", f"%{_NOTHING}")
