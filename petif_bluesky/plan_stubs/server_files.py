"""What the server knows of files, which may be out of a session's sight. Each function waits for it, with patience."""

import time
from collections.abc import Sequence
from functools import partial

from petif_bluesky.documents.errors import FramesNotFoundError
from tango_server.client.client import Client
from tango_server.client.paging import listed, lost, with_retries

_MOST_TOLD = 5


def frames_in_folder(client: Client, folder: str, patience: float) -> list[str]:
    """Return the frames in a folder as the server sees it, in the order of their names.

    Raises
    ------
    FramesNotFoundError
        if there are none.
    LinkError
        if it is no folder that the server may read, or the server does not answer within `patience` seconds.

    """
    deadline = time.monotonic() + patience
    frames = list(listed(lambda after: with_retries(partial(client.frames_in, folder, after), deadline)))
    if not frames:
        raise FramesNotFoundError(
            f"{folder}: found no frames; expected .tif or .tiff files that are no darks. Sub-folders are not gone "
            "through, and darks are only converted by their names."
        )
    return frames


def require_files(client: Client, paths: Sequence[str], patience: float, whose: str) -> None:
    """Raise `FramesNotFoundError` if the server does not see one of the files; `whose` begins the message.

    Raises
    ------
    LinkError
        if the server does not answer within `patience` seconds.

    """
    deadline = time.monotonic() + patience
    found = lost(lambda part: with_retries(partial(client.missing, part), deadline), paths)
    reasons = [each.reason for each in found]
    if reasons:
        more = f" And {len(reasons) - _MOST_TOLD} more." if len(reasons) > _MOST_TOLD else ""
        raise FramesNotFoundError(
            f"{whose}: {len(reasons)} of {len(paths)} frames can't be found: {' '.join(reasons[:_MOST_TOLD])}{more}"
        )
