"""Words for people that stand in more than one place."""

from tango_server.recipe import Flip

FLIPPED: dict[Flip, str] = {
    "none": "not flipped",
    "0": "flipped up-down",
    "1": "flipped left-right",
    "both": "flipped both ways",
}
"""What a flip does."""


def counted(number: int, thing: str) -> str:
    """Return a number with what it counts.

    >>> counted(1, "frame"), counted(0, "frame"), counted(20, "report")
    ('1 frame', '0 frames', '20 reports')
    """
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
