"""Submits frames to a running server and follows them until each has a report."""

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
from tango_server.messages import AwaitedFrame, FrameReport, RefusedRequest, ReportsQuery, SubmitAnswer, frame_job_id
from tango_server.text import split_data_set

_PORTION = 500
"""Frames per call: answered within about 50 ms, well below the limits of the server."""
_PAUSE = 0.1
_EMPTY = "no frames found: darks do not count, and sub-folders are not searched."
_FRAMES = (".tif", ".tiff", ".cbf", ".edf", ".mccd", ".h5", ".hdf5", ".nxs")


def whole_path(path: str) -> str:
    r"""Return an absolute path for another process: a relative one starts in the working directory.

    >>> whole_path("/data/raw/a.tif"), whole_path(r"Z:\raw\a.tif"), whole_path(r"\\filer\raw")
    ('/data/raw/a.tif', 'Z:\\raw\\a.tif', '\\\\filer\\raw')
    """
    file, data_set = split_data_set(path)
    whole = file if absolute(file) else os.path.abspath(file)  # noqa: PTH100 - resolves no links: the server does
    return f"{whole}::{data_set}" if data_set else whole


def frames_at(client: Client, paths: Sequence[str]) -> tuple[list[str], list[RefusedRequest]]:
    """Return the frames at these paths, including those in folders, and the paths with nothing to convert.

    Raises
    ------
    LinkError
        if the server can't be reached.

    """
    frames: list[str] = []
    files: list[str] = []
    refused: list[RefusedRequest] = []
    for path in paths:
        file, data_set = split_data_set(path)
        if data_set or file.lower().endswith(_FRAMES):
            files.append(path)
            continue
        try:
            found = list(listed(partial(client.frames_in, path)))
        except RequestRejectedError:  # not a folder
            files.append(path)
            continue
        frames += found
        if not found:
            refused.append(RefusedRequest(source=path, reason=f"{path}: {_EMPTY}"))
    refused += lost(client.missing, files)
    absent = {each.source for each in refused}
    return [*(file for file in files if file not in absent), *frames], refused


def submit_all(client: Client, requests: Sequence[dict[str, Any]]) -> Iterator[SubmitAnswer]:
    """Submit requests in portions; yield the answer to each.

    Raises
    ------
    LinkError
        if a portion can't be submitted; the ones before it are stored.

    """
    for start in range(0, len(requests), _PORTION):
        yield client.submit(requests[start : start + _PORTION])


def follow(
    client: Client,
    job_ids: Sequence[str],
    timeout: float,
    on_awaited: Callable[[Sequence[AwaitedFrame]], None] = lambda _: None,
) -> Iterator[list[FrameReport]]:
    """Yield the new reports of these jobs at each poll, until all have one; then of those of a file of several frames.

    An unavailable server is polled again, since it keeps its jobs. `on_awaited` gets frames whose files are incomplete,
    again with each answer that names some.

    Raises
    ------
    LinkDownError
        if it does not answer for `timeout` seconds.
    UnknownRunError
        if it no longer knows one of the jobs.

    """
    waiting = deque(job_ids)
    pause = threading.Event()
    while waiting:
        asked = [waiting.popleft() for _ in range(min(_PORTION, len(waiting)))]
        query = ReportsQuery(job_ids=asked, limit=_PORTION)
        answer = with_retries(partial(client.reports, query), time.monotonic() + timeout)
        reports = answer.reports
        known = {report.job_id for report in reports}
        for report in reports:
            waiting.extend(frame_job_id(report.job_id or "", index) for index in range(report.frames or 0))
        waiting.extend(job_id for job_id in asked if job_id not in known)
        if answer.awaited:
            on_awaited(answer.awaited)
        yield reports
        if not known:
            pause.wait(_PAUSE)
