"""Text for people: words that stand in more than one place, and the boundary for text that others wrote."""

import re
import reprlib
import time
from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

LONGEST_SHOWN = 300
"""Characters of one name or finding that a message repeats."""
LONGEST_MESSAGE = 4_000
"""Characters of a whole message."""
_EXPLAINED = 10  # faults of one message

_UNPRINTABLE = re.compile(  # control characters, line separators, what turns the direction of writing, no characters
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]"
)


def printable(text: str, longest: int = LONGEST_SHOWN) -> str:
    r"""Return text that a terminal, a browser, a log and every encoding of Unicode take.

    All text that was not written by this program passes here before anybody gets it: names, tags, headers, sidecars,
    requests, errors of libraries. What a terminal would obey and what is no character is escaped; of a text of more
    than `longest` characters the end is left out.

    >>> printable("/data/a\n\x1b[31m\udce9.tif"), len(printable("a" * 10_000))
    ('/data/a\\n\\x1b[31m\\udce9.tif', 303)
    """
    shown = _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text[:longest])
    return shown + ("..." if len(text) > longest else "")


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
    """Return a number with what it counts.

    >>> counted(1, "frame"), counted(0, "frame"), counted(20, "report")
    ('1 frame', '0 frames', '20 reports')
    """
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def local_time(instant: float) -> str:
    """Return an instant (Unix s) as the clocks of this host show it, as `2026-01-31 23:59:59`."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(instant))


def explain(error: "ValidationError", known: Iterable[str] = ()) -> str:
    """Return what is wrong with each field, in one line; of the `known` names the one that an unknown one is like.

    >>> from pydantic import ValidationError
    >>> from tango_server.recipe import Recipe
    >>> try:
    ...     Recipe(rotation=45)
    ... except ValidationError as error:
    ...     print(explain(error))
    rotation: found 45; input should be 0, 90, 180 or 270
    """
    parts = []
    faults = error.errors(include_url=False)
    for fault in faults[:_EXPLAINED]:
        place = printable(".".join(str(part) for part in fault["loc"])) or "the whole"
        message = fault["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        if not fault["loc"] and fault["type"] == "value_error":  # several fields together, and the message names them
            parts.append(message)
            continue
        if fault["type"] == "extra_forbidden":
            like = get_close_matches(str(fault["loc"][-1]), known, 1)
            message = "there is no such name" + (f" (did you mean {like[0]}?)" if like else "")
        found = "nothing" if fault["type"] == "missing" else reprlib.repr(fault["input"])
        parts.append(f"{place}: found {found}; {message}")
    if len(faults) > _EXPLAINED:
        parts.append(f"and {len(faults) - _EXPLAINED} more faults")
    return "; ".join(parts)
