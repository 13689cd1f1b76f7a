"""A stand-in for a conversion server, which a test controls: no process, no network, no thread."""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from petif_bluesky.server_poller import Listener, ServerState, Watcher
from petif_bluesky.testing.fake_book import FakeBook, Reporter
from petif_bluesky.testing.reports import XDI, converted_beside
from tango_server.client.client import Client, LinkDownError, RequestRejectedError, UnknownRunError
from tango_server.messages import (
    FolderAnswer,
    FrameRequest,
    RefusedRequest,
    ReportsAnswer,
    ReportsQuery,
    RunStatistics,
    SubmitAnswer,
)
from tango_server.recipe import Recipe
from tango_server.text import explain

PATIENCE = 10.0
"""For how long a test is waited for, in s."""
UP = ServerState(
    asked=True, connected=True, seen=1.7e9, version="1.2.3", recipe=XDI.model_dump(mode="json"), trouble=""
)
"""What is known of the server at first."""


class FakeServer(Client):
    """Takes the place of a `ServerPoller` and its `Client`: `PETifConverter(fake.address, name="c", poller=fake)`.

    It takes and refuses what a server would, once per key, and says at once that each frame was converted, although
    nothing is: `report = really_converted` changes that.

    Parameters
    ----------
    root: folder below which frames must lie, as that of a server; None: anywhere below a folder `raw`
    recipe: the server's own, for frames whose run has none

    A test sets what the server is to do:

    Attributes
    ----------
    state
        what is known of the server; `go_down` and `go_up` change it
    converts
        whether frames get their report at once; False leaves them pending until it is True again, as a paused server
    prompt
        whether listeners are told of each change within the call that makes it; a real poller tells them later
    report
        what becomes of a frame: `converted_beside`, `really_converted`, or a function that chooses, with `failed`
    refused
        sources that are refused alone, besides those that a server refuses
    rejected
        sources that make a whole call wrong
    absent
        files that the server does not see
    folders
        what is in folders of the server, in the parts in which it tells it
    troubles
        what the next calls raise, one each
    answers
        cleared, it makes calls wait, as a server that hangs does, and fail after `PATIENCE`
    on_follow
        is called when somebody begins to follow a run

    and reads what came of it:

    requests
        what was accepted, by key, in its order
    announced
        the runs that were announced
    attempts
        how many calls there were
    callers
        the threads that called

    """

    def __init__(self, root: str | Path | None = None, *, recipe: Recipe = XDI) -> None:
        super().__init__("tango://fake:1/petif/converter/1#dbase=no")
        self.state = replace(UP, recipe=recipe.model_dump(mode="json"))
        self.prompt = True
        self.report: Reporter = converted_beside
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
        """Itself: it is both the poller and the client."""
        return self

    @property
    def requests(self) -> dict[str, FrameRequest]:
        """The requests that were accepted, by key."""
        return self._book.requests

    @property
    def announced(self) -> list[str]:
        """The runs that were announced."""
        return self._book.announced

    @property
    def sources(self) -> list[str]:
        """The files of the requests, in their order."""
        with self._changed:
            return [request.source for request in self.requests.values()]

    @property
    def converts(self) -> bool:
        """Whether frames get their report at once."""
        return self._converts

    @converts.setter
    def converts(self, converts: bool) -> None:
        with self._changed:
            self._converts = converts
            self._convert()
        self._tell_all()

    def submit(self, requests: Sequence[Mapping[str, Any]], runs: Sequence[str] = ()) -> SubmitAnswer:
        """Take requests, and announcements of runs."""
        self._called()
        if self.rejected.intersection(request.get("source", "") for request in requests):
            raise RequestRejectedError("found a request that can't be; expected another")
        with self._changed:
            try:
                answer = self._book.accept(requests, runs, self.refused)
            except ValidationError as error:
                raise RequestRejectedError(f"Submit: {explain(error)}. Correct it and call again.") from error
            self._convert()
        self._tell_all()
        return answer

    def run_statistics(self, run_uid: str) -> RunStatistics:
        """Return the statistics of a run."""
        self._called()
        self._require_known(run_uid)
        return self.statistics(run_uid)

    def reports(self, query: ReportsQuery) -> ReportsAnswer:
        """Return the reports of a run; other queries are rejected."""
        self._called()
        if query.run_uid is None:
            raise RequestRejectedError(f"{self.address}: found no run_uid; expected one: the stand-in knows runs only.")
        self._require_known(query.run_uid)
        with self._changed:
            found = self._book.reports(query.run_uid, query.after or "")
            pending = self._book.statistics(query.run_uid).pending
        wanted = [report for report in found if query.outcome in (None, report.outcome)]
        return ReportsAnswer(reports=wanted[: query.limit], pending=pending)

    def frames_in(self, folder: str, after: str = "") -> FolderAnswer:
        """Return the part of a folder that comes after a name."""
        self._called()
        if folder not in self.folders:
            raise RequestRejectedError(
                f"{folder}: found no folder; expected one that the conversion host sees. Check it."
            )
        last_names = ["", *(part.frames[-1].rpartition("/")[2] for part in self.folders[folder][:-1])]
        return self.folders[folder][last_names.index(after)]

    def missing(self, paths: Sequence[str]) -> list[RefusedRequest]:
        """Return those of the files that are absent."""
        self._called()
        return [
            RefusedRequest(source=path, reason=f"{path}: found no such file") for path in paths if path in self.absent
        ]

    def wait_for_first_poll(self, timeout: float) -> ServerState:
        """Return the state at once."""
        del timeout
        return self.state

    def follow(self, run_uid: str, listener: Listener) -> Callable[[], None]:
        """Have `listener` called with what becomes of a run."""
        key = object()
        with self._changed:
            self.listeners[key] = (run_uid, listener)
            self._changed.notify_all()
        self.on_follow()
        if self.prompt:
            self._tell_of_now(run_uid, listener)
        return lambda: self._unfollow(key)

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Have `watcher` called with what is known of the server."""
        key = object()
        self.watchers[key] = watcher
        return lambda: self.watchers.pop(key, None) and None

    def statistics(self, run_uid: str) -> RunStatistics:
        """Return what the server would say of a run now; it is no call."""
        with self._changed:
            return self._book.statistics(run_uid)

    def tell(self, run_uid: str, statistics: RunStatistics | None) -> None:
        """Tell those who follow a run, as a real poller does."""
        for followed, listener in list(self.listeners.values()):
            if followed == run_uid:
                listener(statistics)

    def poll(self, state: ServerState) -> None:
        """Take this as the state of the server, and tell those who watch it, as a real poller does."""
        self.state = state
        for watcher in list(self.watchers.values()):
            watcher(state)

    def go_down(self) -> None:
        """Have the server be down: calls fail, and are to be tried again."""
        self.poll(self.state.lost("it was switched off"))
        self._tell_all()

    def go_up(self) -> None:
        """Have the server be back."""
        self.poll(replace(UP, recipe=self.state.recipe))
        self._tell_all()

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a call or a listener has made `condition` true; raise `TimeoutError` after `PATIENCE`."""
        with self._changed:
            if not self._changed.wait_for(condition, PATIENCE):
                raise TimeoutError(f"what is waited for did not come true within {PATIENCE:g} s")

    def _called(self) -> None:
        with self._changed:
            self.attempts += 1
            self.callers.add(threading.current_thread())
            self._changed.notify_all()
        answered = self.answers.wait(PATIENCE)
        if self.troubles:
            raise self.troubles.popleft()
        if self.state.down or not answered:
            raise LinkDownError(f"{self.address}: found no answer; expected a running server.")

    def _require_known(self, run_uid: str) -> None:
        with self._changed:
            if not self._book.knows(run_uid):
                raise UnknownRunError(f"unknown run {run_uid!r}: no frame of it was submitted and it was not announced")

    def _convert(self) -> None:
        if self._converts:
            self._book.convert(self.report)
        self._changed.notify_all()

    def _tell_all(self) -> None:
        for run_uid, listener in list(self.listeners.values()) if self.prompt else ():
            self._tell_of_now(run_uid, listener)

    def _tell_of_now(self, run_uid: str, listener: Listener) -> None:
        if self.state.connected:
            listener(self.statistics(run_uid))
        elif self.state.asked:
            listener(None)

    def _unfollow(self, key: object) -> None:
        with self._changed:
            self.listeners.pop(key, None)
            self._changed.notify_all()
