"""Numbers of things, as people say them."""


def counted(number: int, thing: str) -> str:
    """Return a number with what it counts.

    >>> counted(1, "frame"), counted(0, "frame"), counted(20, "report")
    ('1 frame', '0 frames', '20 reports')
    """
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
