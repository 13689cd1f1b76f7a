"""A stand-in for the connection to a server, and for the server behind it: the only thing here that is not real."""

import json
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from petif_bluesky.link import LinkDownError, Listener, RequestRejectedError, ServerState, UnknownRunError, Watcher
from tango_server.messages import (
    AcceptedJob,
    FolderAnswer,
    FrameReport,
    FrameRequest,
    RefusedRequest,
    RunStatistics,
    SubmitAnswer,
)

PATIENCE = 10.0
UP = ServerState(asked=True, connected=True, seen=1.7e9, version="1.2.3", trouble="")


class FakeLink:
    """Keeps what it is given, once per key, and reports every frame as converted at once unless `converts` is False.

    Unless it is not `prompt`, listeners are told within `follow` and `submit`, sooner than any real link does it.
    """

    def __init__(self) -> None:
        self.address = "tango://fake:1/petif/converter/1#dbase=no"
        self.server = UP
        self.converts = True
        self.prompt = True
        """Whether listeners are told at once."""
        self.attempts = 0
        self.requests: dict[str, FrameRequest] = {}
        self.announced: list[str] = []
        self.rejected: set[str] = set()
        """Sources that make a whole call wrong."""
        self.report: Callable[[FrameRequest], FrameReport] = self._report
        """What the server says of a frame that has its report."""
        self.absent: set[str] = set()
        """Files that the server does not see."""
        self.folders: dict[str, list[FolderAnswer]] = {}
        """What is in folders of the server, in parts."""
        self.refused: set[str] = set()
        """Sources that are refused alone."""
        self.troubles: deque[Exception] = deque()
        """What the next calls raise."""
        self.answers = threading.Event()
        """Cleared, it makes calls wait."""
        self.answers.set()
        self.callers: set[threading.Thread] = set()
        self.watchers: dict[object, Watcher] = {}
        self.listeners: dict[object, tuple[str, Listener]] = {}
        self.on_follow: Callable[[], None] = lambda: None
        self._changed = threading.Condition()

    @property
    def sources(self) -> list[str]:
        return [request.source for request in self.requests.values()]

    def submit(self, requests: Sequence[Mapping[str, Any]], runs: Sequence[str] = ()) -> SubmitAnswer:
        self._called()
        if self.rejected.intersection(request["source"] for request in requests):
            raise RequestRejectedError("found a request that can't be; expected another")
        with self._changed:
            self.announced += runs
            answer = SubmitAnswer(jobs=[], refused=[])
            for fields in requests:
                self._take(FrameRequest.model_validate_json(json.dumps(fields)), answer)
            self._changed.notify_all()
        for run_uid, listener in list(self.listeners.values()):
            if self.prompt and self.converts:
                listener(self.statistics(run_uid))
        return answer

    def run_statistics(self, run_uid: str) -> RunStatistics:
        self._called()
        if run_uid not in self.announced:
            raise UnknownRunError(run_uid)
        return self.statistics(run_uid)

    def reports(self, run_uid: str) -> list[FrameReport]:
        self._called()
        if run_uid not in self.announced:
            raise UnknownRunError(run_uid)
        if not self.converts:
            return []
        requests = [request for request in self.requests.values() if request.run_uid == run_uid]
        return [self.report(request) for request in requests]

    def frames_in(self, folder: str, after: str = "") -> FolderAnswer:
        self._called()
        if folder not in self.folders:
            raise RequestRejectedError(
                f"{folder}: found no folder; expected one that the conversion host sees. Check it."
            )
        last_names = ["", *(part.frames[-1].rpartition("/")[2] for part in self.folders[folder][:-1])]
        return self.folders[folder][last_names.index(after)]

    def missing(self, paths: Sequence[str]) -> list[RefusedRequest]:
        self._called()
        return [
            RefusedRequest(source=path, reason=f"{path}: found no such file") for path in paths if path in self.absent
        ]

    def follow(self, run_uid: str, listener: Listener) -> Callable[[], None]:
        key = object()
        with self._changed:
            self.listeners[key] = (run_uid, listener)
            self._changed.notify_all()
        self.on_follow()
        if self.prompt and self.server.down:
            listener(None)
        elif self.prompt and self.server.connected and self.converts:
            listener(self.statistics(run_uid))
        return lambda: self._unfollow(key)

    def _report(self, request: FrameRequest) -> FrameReport:
        """What the server would say of a frame: it was converted, beside the raw folder."""
        assert request.key is not None
        return FrameReport(
            job_id=request.key,
            source=request.source,
            output=request.source.replace("/raw/", "/processed/"),
            outcome="converted",
            shape=(48, 32),
            pixel_type="int32",
            conversion_time=0.25,
            latency=0.5,
            accepted=1.7e9,
            finished=1.7e9 + 1,
            run_uid=request.run_uid,
            stream=request.stream,
            seq_num=request.seq_num,
        )

    def statistics(self, run_uid: str) -> RunStatistics:
        """What the server would say of a run now."""
        frames = sum(request.run_uid == run_uid for request in self.requests.values())
        converted = frames if self.converts else 0
        return RunStatistics(
            run_uid=run_uid,
            submitted=frames,
            converted=converted,
            pending=frames - converted,
            conversion_time_total=0.25 * converted,
            conversion_time_mean=0.25 if converted else 0.0,
            latency_median=0.5 if converted else 0.0,
            latency_p95=0.75 if converted else 0.0,
        )

    def tell(self, run_uid: str, statistics: RunStatistics | None) -> None:
        """Tell those who follow a run, as the poll of a real link does."""
        for followed, listener in list(self.listeners.values()):
            if followed == run_uid:
                listener(statistics)

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        key = object()
        self.watchers[key] = watcher
        return lambda: self.watchers.pop(key, None) and None

    def look(self, server: ServerState) -> None:
        """Know this of the server, and show it, as the poll of a real link does."""
        self.server = server
        for watcher in list(self.watchers.values()):
            watcher(server)

    def go_down(self) -> None:
        self.look(self.server.lost("it was switched off"))

    def go_up(self) -> None:
        self.look(UP)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a call or a listener has made `condition` true."""
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE)

    def _called(self) -> None:
        with self._changed:
            self.attempts += 1
            self.callers.add(threading.current_thread())
            self._changed.notify_all()
        assert self.answers.wait(PATIENCE)
        if self.troubles:
            raise self.troubles.popleft()
        if self.server.down:
            raise LinkDownError(f"{self.address}: found no answer; expected a running server.")

    def _take(self, request: FrameRequest, answer: SubmitAnswer) -> None:
        assert request.key is not None
        if request.source in self.refused:
            answer.refused.append(RefusedRequest(source=request.source, reason=f"{request.source} is outside"))
            return
        self.requests.setdefault(request.key, request)
        answer.jobs.append(AcceptedJob(job_id=request.key, source=request.source))

    def _unfollow(self, key: object) -> None:
        with self._changed:
            self.listeners.pop(key, None)
            self._changed.notify_all()
