"""Frames that a person names, handed to a running server and followed until each has its report."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from tango_server.client.client import Client, RequestRejectedError
from tango_server.client.paging import listed, lost, with_retries
from tango_server.conversion.files.path_map import absolute
from tango_server.messages import AwaitedFrame, FrameReport, RefusedRequest, ReportsQuery, SubmitAnswer

_PORTION = 500
"""Frames of one call: it is answered in some 50 ms, and the server's limits are far away."""
_PAUSE = 0.1
_EMPTY = "found no frame; expected .tif or .tiff files that are no darks. Sub-folders are not gone through."
_FRAMES = (".tif", ".tiff")


def whole_path(path: str) -> str:
    r"""Return a path as another process can understand it: a relative one begins in the working folder.

    >>> whole_path("/data/raw/a.tif"), whole_path(r"Z:\raw\a.tif"), whole_path(r"\\filer\raw")
    ('/data/raw/a.tif', 'Z:\\raw\\a.tif', '\\\\filer\\raw')
    """
    return path if absolute(path) else os.path.abspath(path)  # noqa: PTH100 - resolves no links: the server does


def frames_at(client: Client, paths: Sequence[str]) -> tuple[list[str], list[RefusedRequest]]:
    """Return the frames at these paths, those of folders included, and the paths at which there is nothing to convert.

    Raises
    ------
    LinkError
        if the server can't be asked.

    """
    frames: list[str] = []
    files: list[str] = []
    refused: list[RefusedRequest] = []
    for path in paths:
        if path.lower().endswith(_FRAMES):
            files.append(path)
            continue
        try:
            found = list(listed(partial(client.frames_in, path)))
        except RequestRejectedError:  # it is no folder
            files.append(path)
            continue
        frames += found
        if not found:
            refused.append(RefusedRequest(source=path, reason=f"{path}: {_EMPTY}"))
    refused += lost(client.missing, files)
    absent = {each.source for each in refused}
    return [*(file for file in files if file not in absent), *frames], refused


def submit_all(client: Client, requests: Sequence[dict[str, Any]]) -> Iterator[SubmitAnswer]:
    """Hand requests to the server portion by portion; yield its answers, one for each.

    Raises
    ------
    LinkError
        if a portion can't be handed over; the ones before it are safe.

    """
    for start in range(0, len(requests), _PORTION):
        yield client.submit(requests[start : start + _PORTION])


def follow(
    client: Client,
    job_ids: Sequence[str],
    patience: float,
    on_awaited: Callable[[Sequence[AwaitedFrame]], None] = lambda _: None,
) -> Iterator[list[FrameReport]]:
    """Yield the new reports of these jobs, as often as was looked for them, until all are there.

    A server that is away for a while is asked again: it keeps its jobs. `on_awaited` gets frames whose files are not
    complete yet, again with each answer that names some.

    Raises
    ------
    LinkDownError
        if it gives no answer for `patience` seconds.
    UnknownRunError
        if it has forgotten one of the jobs.

    """
    waiting = deque(job_ids)
    pause = threading.Event()
    while waiting:
        asked = [waiting.popleft() for _ in range(min(_PORTION, len(waiting)))]
        query = ReportsQuery(job_ids=asked, limit=_PORTION)
        answer = with_retries(partial(client.reports, query), time.monotonic() + patience)
        reports = answer.reports
        known = {report.job_id for report in reports}
        waiting.extend(job_id for job_id in asked if job_id not in known)
        if answer.awaited:
            on_awaited(answer.awaited)
        yield reports
        if not known:
            pause.wait(_PAUSE)
