"""What the server knows of files, which may be out of a session's sight. Each function waits for it, with patience."""

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from petif_bluesky.link import Link, LinkDownError
from petif_bluesky.raw_frames import FramesNotFoundError
from petif_bluesky.shapes.places import name_of

Answer = TypeVar("Answer")

_PAUSE = 0.5
_LOOKED_FOR = 200
"""Files in one question: a file server may take milliseconds for each, and other clients wait meanwhile."""
_MOST_TOLD = 5


def frames_in_folder(link: Link, folder: str, patience: float) -> list[str]:
    """Return the frames in a folder as the server sees it, in the order of their names.

    Raises
    ------
    FramesNotFoundError
        if there are none.
    LinkError
        if it is no folder that the server may read, or the server does not answer within `patience` seconds.

    """
    deadline = time.monotonic() + patience
    frames: list[str] = []
    more = True
    while more:
        after = name_of(frames[-1]) if frames else ""
        answer = _asked(partial(link.frames_in, folder, after), deadline)
        frames += answer.frames
        more = answer.more
    if not frames:
        raise FramesNotFoundError(
            f"{folder}: found no frames; expected .tif or .tiff files that are no darks. Sub-folders are not gone "
            "through, and darks are only converted by their names."
        )
    return frames


def require_files(link: Link, paths: Sequence[str], patience: float, whose: str) -> None:
    """Raise `FramesNotFoundError` if the server does not see one of the files; `whose` begins the message.

    Raises
    ------
    LinkError
        if the server does not answer within `patience` seconds.

    """
    deadline = time.monotonic() + patience
    reasons: list[str] = []
    for first in range(0, len(paths), _LOOKED_FOR):
        part = paths[first : first + _LOOKED_FOR]
        reasons += [lost.reason for lost in _asked(partial(link.missing, part), deadline)]
    if reasons:
        more = f" And {len(reasons) - _MOST_TOLD} more." if len(reasons) > _MOST_TOLD else ""
        raise FramesNotFoundError(
            f"{whose}: {len(reasons)} of {len(paths)} frames can't be found: {' '.join(reasons[:_MOST_TOLD])}{more}"
        )


def _asked(ask: Callable[[], Answer], deadline: float) -> Answer:
    pause = threading.Event()
    while True:
        try:
            return ask()
        except LinkDownError:
            if time.monotonic() + _PAUSE > deadline:
                raise
            pause.wait(_PAUSE)
