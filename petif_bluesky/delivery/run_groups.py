"""The groups of all open runs of a callback: the frames that are combined, and when a group has all its members."""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from petif_bluesky.delivery.run_maps import RunMaps
from petif_bluesky.documents.frame import Frame
from petif_bluesky.documents.groups import Groups, combine_of
from tango_server.messages import FrameReport

_KEPT_RUNS = 100

Request = dict[str, Any]
Write = Callable[[Sequence[Request], dict[str, int]], object]
"""Writes requests, and then the numbers of members of closed groups."""


class RunGroups:
    """Groups by run; thread-safe.

    Requests and closings are written in the order in which they are made, so that a group is never closed before its
    members are requested.

    Parameters
    ----------
    write: writes both
    note_open: called with a run and the number of its frames in groups that are not closed

    """

    def __init__(self, write: Write, note_open: Callable[[str, int], None]) -> None:
        self._write = write
        self._note_open = note_open
        self._groups: dict[str, Groups] = {}
        self._maps = RunMaps()
        self._lock = threading.Lock()

    def put(self, frames: Iterable[Frame]) -> list[Request]:
        """Write the requests of frames, with their groups; return them."""
        with self._lock:
            grouped = [self._maps.placed(self._grouped(frame)) for frame in frames]
            members = {frame.group: frame.members for frame in grouped}  # the last number is the largest
            requests = [replace(frame, members=members[frame.group]).request() for frame in grouped]
            runs = dict.fromkeys(frame.run_uid for frame in grouped if frame.run_uid in self._groups)
            for run_uid in runs:  # before they are written: a group never seems complete too early
                self._note_open(run_uid, self._groups[run_uid].open_members)
            self._write(requests, self._closings(runs))
        return requests

    def close(self, run_uid: str) -> list[Request]:
        """Close the groups of a run that is about to stop; return requests for the points of its map without a frame.

        These are written, too.
        """
        with self._lock:
            groups = self._groups.get(run_uid)
            if groups is not None:
                groups.close()
            missing = self._maps.missing(run_uid)
            if groups is not None or missing:
                self._write(missing, self._closings([run_uid] if groups is not None else []))
            if groups is not None:
                self._note_open(run_uid, 0)
        return missing

    def fill(self, run_uid: str, reports: Iterable[FrameReport]) -> list[Request]:
        """Write requests for the points of a run's map whose frames failed; return them."""
        with self._lock:
            failed = self._maps.failed(run_uid, reports)
            if failed:
                self._write(failed, {})
        return failed

    def forget(self, run_uid: str) -> None:
        """Drop a run that has ended."""
        with self._lock:
            self._groups.pop(run_uid, None)
            self._maps.forget(run_uid)

    def _grouped(self, frame: Frame) -> Frame:
        if frame.run_uid not in self._groups:
            combine = combine_of(frame.recipe)
            if combine is None:
                return frame
            self._groups[frame.run_uid] = Groups(frame.run_uid, combine)
            if len(self._groups) > _KEPT_RUNS:  # runs that never stopped
                del self._groups[next(iter(self._groups))]
        return self._groups[frame.run_uid].add(frame)

    def _closings(self, runs: Iterable[str]) -> dict[str, int]:
        return {group: members for uid in runs for group, members in self._groups[uid].take_closings().items()}
