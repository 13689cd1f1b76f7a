"""A fake conversion server controlled by a test, without processes, network or threads."""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from petif_bluesky.server_poller import Listener, ServerState, Watcher
from petif_bluesky.testing.fake_book import FakeBook, GroupReporter, Reporter
from petif_bluesky.testing.reports import XDI, combined_beside, converted_beside
from tango_server.client.client import Client, LinkDownError, RequestRejectedError, UnknownRunError
from tango_server.messages import (
    FolderAnswer,
    FrameRequest,
    RefusedRequest,
    ReportsAnswer,
    ReportsQuery,
    RunCounts,
    RunStatistics,
    SubmitAnswer,
)
from tango_server.recipe import Recipe
from tango_server.text import explain

PATIENCE = 10.0
"""Timeout (s) of blocking calls."""
UP = ServerState(
    was_polled=True, connected=True, seen=1.7e9, version="1.2.3", recipe=XDI.model_dump(mode="json"), error=""
)
"""Initial state of the server."""


class FakeServer(Client):
    """Replaces a `ServerPoller` and its `Client`: `PETifConverter(fake.address, name="c", poller=fake)`.

    It accepts and refuses requests as a server would, once per key, and at once reports each frame as converted,
    without writing files. Set `report = really_converted` to convert them. A group is combined once it is closed and
    all its members are there.

    Parameters
    ----------
    root: folder that must contain the frames, as for a server; None for anywhere below a folder `raw`
    recipe: the server's recipe, for frames of runs without one

    A test controls the server with these attributes:

    Attributes
    ----------
    state
        state of the server; changed by `go_down` and `go_up`
    converts
        whether frames get a report at once; if False, they stay pending until it is True again, as on a paused server
    prompt
        whether listeners are called at once on each change; a real poller calls them later
    report
        makes the report of a frame: `converted_beside`, `really_converted`, or a function that may return `failed(...)`
    report_group
        makes the report of a group of frames: `combined_beside`, or `really_combined`
    refused
        sources refused individually, as well as those that a server refuses
    rejected
        sources that make a whole call invalid
    absent
        files that the server cannot see
    folders
        contents of folders on the server, as the pages of the answer
    troubles
        errors raised by the next calls, one each
    answers
        if cleared, calls block as with a server that hangs, and fail after `PATIENCE`
    on_follow
        called when a listener starts to follow a run

    and checks the results:

    requests
        accepted requests by key, in order
    announced
        announced runs
    attempts
        number of calls
    callers
        threads that made calls

    """

    def __init__(self, root: str | Path | None = None, *, recipe: Recipe = XDI) -> None:
        super().__init__("tango://fake:1/petif/converter/1#dbase=no")
        self.state = replace(UP, recipe=recipe.model_dump(mode="json"))
        self.prompt = True
        self.report: Reporter = converted_beside
        self.report_group: GroupReporter = combined_beside
        self.refused: set[str] = set()
        self.rejected: set[str] = set()
        self.absent: set[str] = set()
        self.folders: dict[str, list[FolderAnswer]] = {}
        self.troubles: deque[Exception] = deque()
        self.answers = threading.Event()
        self.answers.set()
        self.on_follow: Callable[[], None] = lambda: None
        self.attempts = 0
        self.callers: set[threading.Thread] = set()
        self.watchers: dict[object, Watcher] = {}
        self.listeners: dict[object, tuple[str, Listener]] = {}
        self._converts = True
        self._book = FakeBook(None if root is None else Path(root), recipe)
        self._changed = threading.Condition()

    @property
    def client(self) -> Client:
        """The fake itself, which is both poller and client."""
        return self

    @property
    def requests(self) -> dict[str, FrameRequest]:
        """The accepted requests by key."""
        return self._book.requests

    @property
    def announced(self) -> list[str]:
        """The announced runs."""
        return self._book.announced

    @property
    def sources(self) -> list[str]:
        """The source files of the requests, in order."""
        with self._changed:
            return [request.source for request in self.requests.values()]

    @property
    def converts(self) -> bool:
        """Whether frames get a report at once."""
        return self._converts

    @converts.setter
    def converts(self, converts: bool) -> None:
        with self._changed:
            self._converts = converts
            self._convert()
        self._notify_all()

    def submit(
        self,
        requests: Sequence[Mapping[str, Any]],
        runs: Sequence[str] = (),
        run_counts: RunCounts | None = None,
        close_groups: Mapping[str, int] | None = None,
    ) -> SubmitAnswer:
        """Accept requests and announcements of runs, their counts and the sizes of groups."""
        self._called()
        if self.rejected.intersection(request.get("source", "") for request in requests):
            raise RequestRejectedError("Submit: a request is in `rejected`.")
        with self._changed:
            try:
                answer = self._book.accept(requests, runs, self.refused, run_counts, close_groups)
            except ValidationError as error:
                raise RequestRejectedError(f"Submit: {explain(error)}. Correct it and call again.") from error
            self._convert()
        self._notify_all()
        return answer

    def run_statistics(self, run_uid: str) -> RunStatistics:
        """Return the statistics of a run."""
        self._called()
        self._require_known(run_uid)
        return self.statistics(run_uid)

    def reports(self, query: ReportsQuery) -> ReportsAnswer:
        """Return the reports of a run, or those of all runs after a position; other queries are rejected."""
        self._called()
        if query.latest and query.after is not None:
            with self._changed:
                return self._book.reports_after(query.after, query.limit)
        if query.run_uid is None:
            raise RequestRejectedError(f"{self.address}: run_uid is missing: the fake server only has reports by run.")
        self._require_known(query.run_uid)
        with self._changed:
            found = self._book.reports(query.run_uid, query.after or "")
            pending = self._book.statistics(query.run_uid).pending
        wanted = [report for report in found if query.outcome in (None, report.outcome)]
        return ReportsAnswer(reports=wanted[: query.limit], pending=pending)

    def frames_in(self, folder: str, after: str = "") -> FolderAnswer:
        """Return the page of a folder after a name."""
        self._called()
        if folder not in self.folders:
            raise RequestRejectedError(f"{folder}: the conversion host cannot see this folder. Check the path.")
        last_names = ["", *(part.frames[-1].rpartition("/")[2] for part in self.folders[folder][:-1])]
        return self.folders[folder][last_names.index(after)]

    def missing(self, paths: Sequence[str]) -> list[RefusedRequest]:
        """Return the files that are in `absent`."""
        self._called()
        return [RefusedRequest(source=path, reason=f"{path}: no such file") for path in paths if path in self.absent]

    def wait_for_first_poll(self, timeout: float) -> ServerState:
        """Return the state at once."""
        del timeout
        return self.state

    def follow(self, run_uid: str, listener: Listener, *, closely: bool = True) -> Callable[[], None]:
        """Call `listener` with the statistics of a run; return a function that stops this."""
        key = object()
        with self._changed:
            self.listeners[key] = (run_uid, listener)
            self._changed.notify_all()
        if closely:
            self.on_follow()
        if self.prompt:
            self._notify(run_uid, listener)
        return lambda: self._unfollow(key)

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Call `watcher` with the state of the server; return a function that stops this."""
        key = object()
        self.watchers[key] = watcher
        return lambda: self.watchers.pop(key, None) and None

    def statistics(self, run_uid: str) -> RunStatistics:
        """Return the statistics of a run, without counting as a call."""
        with self._changed:
            return self._book.statistics(run_uid)

    def tell(self, run_uid: str, statistics: RunStatistics | None) -> None:
        """Call the listeners of a run, as a real poller does."""
        for followed, listener in list(self.listeners.values()):
            if followed == run_uid:
                listener(statistics)

    def poll(self, state: ServerState) -> None:
        """Set the state of the server and call its watchers, as a real poller does."""
        self.state = state
        for watcher in list(self.watchers.values()):
            watcher(state)

    def go_down(self) -> None:
        """Take the server down: calls fail as in an outage."""
        self.poll(self.state.lost("it was taken down"))
        self._notify_all()

    def go_up(self) -> None:
        """Bring the server back."""
        self.poll(replace(UP, recipe=self.state.recipe))
        self._notify_all()

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a call or a listener has made `condition` true; raise `TimeoutError` after `PATIENCE`."""
        with self._changed:
            if not self._changed.wait_for(condition, PATIENCE):
                raise TimeoutError(f"the condition was not met within {PATIENCE:g} s")

    def _called(self) -> None:
        with self._changed:
            self.attempts += 1
            self.callers.add(threading.current_thread())
            self._changed.notify_all()
        answered = self.answers.wait(PATIENCE)
        if self.troubles:
            raise self.troubles.popleft()
        if self.state.down or not answered:
            raise LinkDownError(f"{self.address}: the server does not answer.")

    def _require_known(self, run_uid: str) -> None:
        with self._changed:
            if not self._book.knows(run_uid):
                raise UnknownRunError(f"unknown run {run_uid!r}: it was not announced and has no frames")

    def _convert(self) -> None:
        if self._converts:
            self._book.convert(self.report, self.report_group)
        self._changed.notify_all()

    def _notify_all(self) -> None:
        for run_uid, listener in list(self.listeners.values()) if self.prompt else ():
            self._notify(run_uid, listener)

    def _notify(self, run_uid: str, listener: Listener) -> None:
        if self.state.connected:
            listener(self.statistics(run_uid))
        elif self.state.was_polled:
            listener(None)

    def _unfollow(self, key: object) -> None:
        with self._changed:
            self.listeners.pop(key, None)
            self._changed.notify_all()
