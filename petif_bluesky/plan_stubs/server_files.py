"""Ask the server about files that the session itself may not see; calls are retried until a timeout."""

import time
from collections.abc import Sequence
from functools import partial

from petif_bluesky.documents.errors import FramesNotFoundError
from tango_server.client.client import Client
from tango_server.client.paging import listed, lost, with_retries
from tango_server.text import split_data_set

_MOST_LISTED = 5


def frames_in_folder(client: Client, folder: str, timeout: float) -> list[str]:
    """Return the frames in a folder as the server sees it, sorted by name.

    Raises
    ------
    FramesNotFoundError
        if there are none.
    LinkError
        if the server may not read the folder, or does not answer within `timeout` seconds.

    """
    deadline = time.monotonic() + timeout
    frames = list(listed(lambda after: with_retries(partial(client.frames_in, folder, after), deadline)))
    if not frames:
        raise FramesNotFoundError(
            f"{folder}: no frames to convert: no files of a known format but darks. Subfolders are not searched, "
            "and darks are converted only when given by name."
        )
    return frames


def require_files(client: Client, paths: Sequence[str], timeout: float, whose: str) -> None:
    """Raise `FramesNotFoundError` if the server cannot see one of the files; `whose` starts the message.

    `paths` may name data sets in HDF5 files, and a file of several frames more than once.

    Raises
    ------
    LinkError
        if the server does not answer within `timeout` seconds.

    """
    deadline = time.monotonic() + timeout
    files = list(dict.fromkeys(split_data_set(path)[0] for path in paths))
    found = lost(lambda part: with_retries(partial(client.missing, part), deadline), files)
    reasons = [each.reason for each in found]
    if reasons:
        things = "frames" if len(files) == len(paths) else "files"
        what = f"{len(reasons)} of {len(files)} {things}"
        more = f" And {len(reasons) - _MOST_LISTED} more." if len(reasons) > _MOST_LISTED else ""
        raise FramesNotFoundError(f"{whose}: {what} cannot be found: {' '.join(reasons[:_MOST_LISTED])}{more}")
