"""Which paths a server accepts, apart from the roots.

Control characters are legal in POSIX file names, but QXRD never writes them, and a name with a line break would become
two lines of a log, or two files of a list. So they are refused.
"""

import os
import re

from tango_server.conversion.errors import UnfitPathError
from tango_server.text import printable

LONGEST_PATH = 4096
"""Bytes of the longest path on Linux."""
LONGEST_NAME = 255
"""Bytes of the longest name in it."""
_CONTROL = re.compile(  # control characters, line separators, changes of writing direction
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)


def require_printable(path: str) -> None:
    """Raise `UnfitPathError` for a path or the name of a data set with control characters."""
    if control := _CONTROL.search(path):
        problem = f"the path has the control character {control[0]!a}"
        raise UnfitPathError(printable(path), problem, "Rename the file.")


def require_fit(path: str) -> None:
    """Raise `UnfitPathError` for a path that no server accepts."""
    require_printable(path)
    encoded = path.encode("utf-8", "surrogatepass") if len(path) * 4 > LONGEST_NAME else b""
    longest = max(map(len, encoded.split(os.sep.encode())))
    if not os.path.isabs(path):  # noqa: PTH117 - it is a text
        problem, advice = "a relative path", "Give an absolute path."
    elif len(encoded) > LONGEST_PATH:
        problem = f"a path of {len(encoded)} bytes (at most {LONGEST_PATH})"
        advice = "Check the path; use shorter folder names."
    elif longest > LONGEST_NAME:
        problem = f"the path has a name of {longest} bytes (at most {LONGEST_NAME})"
        advice = "Check the path; no file system allows such a name."
    else:
        return
    raise UnfitPathError(printable(path), problem, advice)
