"""What a path may look like, wherever it leads.

Control characters are legal in file names on POSIX, and QXRD never writes one. They are refused all the same: one name
with a line break in it makes two lines of a log, or two files of a list.
"""

import os
import re

from tango_server.conversion.errors import UnfitPathError
from tango_server.text import printable

LONGEST_PATH = 4096
"""Bytes of a path that Linux takes."""
LONGEST_NAME = 255
"""Bytes of one name in it."""
_CONTROL = re.compile(  # control characters, separators of lines, and what turns the direction of writing
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)


def require_fit(path: str) -> None:
    """Raise `UnfitPathError` for what no server takes as a path, wherever it leads."""
    control = _CONTROL.search(path)
    encoded = path.encode("utf-8", "surrogatepass") if len(path) * 4 > LONGEST_NAME else b""
    longest = max(map(len, encoded.split(os.sep.encode())))
    if control:
        found = f"the character {control[0]!a}"
        expected = "a path without control characters, which would spoil logs and lists of files"
        advice = "Rename the file."
    elif not os.path.isabs(path):  # noqa: PTH117 - it is a text
        found, expected, advice = "a relative path", "an absolute path", "Give the whole path."
    elif len(encoded) > LONGEST_PATH:
        found, expected = f"a path of {len(encoded)} bytes", f"one of at most {LONGEST_PATH}"
        advice = "Check the path; use shorter names of folders."
    elif longest > LONGEST_NAME:
        found, expected = f"a name of {longest} bytes in it", f"names of at most {LONGEST_NAME}"
        advice = "Check the path; no file system has such a name."
    else:
        return
    raise UnfitPathError(printable(path), found, expected, advice)
