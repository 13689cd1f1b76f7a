"""Text for people: common formatting, and sanitising of text from outside this program."""

import re
import reprlib
import time
from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

LONGEST_SHOWN = 300
"""Characters of one name or value quoted in a message."""
LONGEST_MESSAGE = 4_000
"""Characters of a whole message."""
_EXPLAINED = 10  # errors listed in one message

_UNPRINTABLE = re.compile(  # control characters, line separators, bidirectional controls, non-characters, surrogates
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]"
)


def printable(text: str, longest: int = LONGEST_SHOWN) -> str:
    r"""Return text that is safe for a terminal, a browser, a log and every Unicode encoding.

    All text from outside this program passes through here before it is shown: names, tags, headers, sidecars, requests,
    errors of libraries. Control characters and non-characters are escaped; text of more than `longest` characters is
    truncated.

    >>> printable("/data/a\n\x1b[31m\udce9.tif"), len(printable("a" * 10_000))
    ('/data/a\\n\\x1b[31m\\udce9.tif', 303)
    """
    shown = _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text[:longest])
    return shown + ("..." if len(text) > longest else "")


def split_data_set(text: str) -> tuple[str, str]:
    """Return the file and the data set that a path names, as in `run.h5::/entry/data/data`; no data set without `::/`.

    >>> split_data_set("/data/run.h5::/entry/data"), split_data_set("::/exchange/dark"), split_data_set("/data/a.tif")
    (('/data/run.h5', '/entry/data'), ('', '/exchange/dark'), ('/data/a.tif', ''))
    """
    file, mark, inside = text.partition("::/")
    return (file, f"/{inside}") if mark else (text, "")


def cut_middle(text: str, longest: int) -> str:
    """Return a path or name of at most `longest` characters: of a longer one the middle is left out.

    >>> cut_middle("/data/raw/alumina-1/alumina-00001.tif", 24), cut_middle("alumina-2", 24)
    ('/data/raw/a…na-00001.tif', 'alumina-2')
    """
    if len(text) <= longest:
        return text
    kept = max(longest - 1, 1)
    end = (kept + 1) // 2
    return f"{text[: kept - end]}…{text[len(text) - end :]}"


def counted(number: int, thing: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "frame"), counted(0, "frame"), counted(20, "report")
    ('1 frame', '0 frames', '20 reports')
    """
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def local_time(instant: float) -> str:
    """Return an instant (Unix s) in the local time of this host, for example `2026-01-31 23:59:59`."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(instant))


def explain(error: "ValidationError", known: Iterable[str] = (), *, within: str = "") -> str:
    """Return what is wrong with each field, in one line; suggest one of the `known` names for an unknown one.

    `within` is the name of the whole. An error that names its own place is not explained again.

    >>> from pydantic import ValidationError
    >>> from tango_server.recipe import Recipe
    >>> try:
    ...     Recipe(rotation=45)
    ... except ValidationError as error:
    ...     print(explain(error))
    rotation: input should be 0, 90, 180 or 270, got 45
    """
    parts = []
    errors = error.errors(include_url=False)
    for each in errors[:_EXPLAINED]:
        place = printable(".".join(str(part) for part in (*([within] if within else []), *each["loc"])))
        message = each["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        if not each["loc"] and each["type"] == "value_error":  # several fields together, and the message names them
            parts.append(f"{place}: {message}" if place else message)
        elif place and message.startswith((f"{place}: ", f"{place}.")):
            parts.append(message)
        elif each["type"] == "extra_forbidden":
            similar = get_close_matches(str(each["loc"][-1]), known, 1)
            parts.append(f"{place}: unknown name" + (f" (did you mean {similar[0]}?)" if similar else ""))
        else:
            got = "" if each["type"] == "missing" else f", got {reprlib.repr(each['input'])}"
            parts.append(f"{place}: {message}{got}" if place else f"{message}{got}")
    if len(errors) > _EXPLAINED:
        parts.append(f"and {len(errors) - _EXPLAINED} more errors")
    return "; ".join(parts)
