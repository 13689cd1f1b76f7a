"""A stand-in for the connection to a server and for the server behind it, which a test holds in its hands."""

import json
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from petif_bluesky.link import LinkDownError, Listener, RequestRejectedError, ServerState, UnknownRunError, Watcher
from tango_server.messages import (
    AcceptedJob,
    FolderAnswer,
    FrameReport,
    FrameRequest,
    RefusedRequest,
    RunStatistics,
    SubmitAnswer,
    SubmitQuery,
)

PATIENCE = 10.0
"""For how long a test is waited for, in s."""
UP = ServerState(asked=True, connected=True, seen=1.7e9, version="1.2.3", trouble="")
"""What is known of the server at first."""


class FakeLink:
    """Takes the place of a `TangoLink`: `PETifConverter(link.address, name="converter", link=link)`.

    It keeps the requests that it is given, once per key, and says at once that each frame was converted, although
    nothing is: `report = really_converted` changes that. A test sets what the server is to do:

    Attributes
    ----------
    server
        what is known of the server; `go_down` and `go_up` change it
    converts
        whether frames have a report; False leaves them pending
    prompt
        whether listeners are told at once, within `follow` and `submit`; a real link tells them a moment later
    report
        what the server says of a frame that has its report
    refused
        sources that are refused alone, as those outside of the server's roots
    rejected
        sources that make a whole call wrong
    absent
        files that the server does not see
    folders
        what is in folders of the server, in the parts in which it tells it
    troubles
        what the next calls raise, one each
    answers
        cleared, it makes calls wait, as a server that hangs does
    on_follow
        is called when somebody begins to follow a run

    and reads what came of it:

    requests
        what was submitted, by key, in its order
    announced
        the runs that were announced
    attempts
        how many calls there were
    callers
        the threads that called

    """

    def __init__(self) -> None:
        self.address = "tango://fake:1/petif/converter/1#dbase=no"
        self.server = UP
        self.converts = True
        self.prompt = True
        self.report: Callable[[FrameRequest], FrameReport] = converted_beside
        self.refused: set[str] = set()
        self.rejected: set[str] = set()
        self.absent: set[str] = set()
        self.folders: dict[str, list[FolderAnswer]] = {}
        self.troubles: deque[Exception] = deque()
        self.answers = threading.Event()
        self.answers.set()
        self.on_follow: Callable[[], None] = lambda: None
        self.requests: dict[str, FrameRequest] = {}
        self.announced: list[str] = []
        self.attempts = 0
        self.callers: set[threading.Thread] = set()
        self.watchers: dict[object, Watcher] = {}
        self.listeners: dict[object, tuple[str, Listener]] = {}
        self._changed = threading.Condition()

    @property
    def sources(self) -> list[str]:
        """The files of the requests, in their order."""
        return [request.source for request in self.requests.values()]

    def submit(self, requests: Sequence[Mapping[str, Any]], runs: Sequence[str] = ()) -> SubmitAnswer:
        """Take requests, and announcements of runs."""
        self._called()
        if self.rejected.intersection(request.get("source", "") for request in requests):
            raise RequestRejectedError("found a request that can't be; expected another")
        try:
            query = SubmitQuery.model_validate_json(json.dumps({"requests": list(requests), "runs": list(runs)}))
        except ValidationError as error:
            raise RequestRejectedError(str(error)) from error
        with self._changed:
            self.announced += query.runs
            answer = SubmitAnswer(jobs=[], refused=[])
            for fields in query.requests:
                self._take(fields, answer)
            self._changed.notify_all()
        for run_uid, listener in list(self.listeners.values()):
            if self.prompt and self.converts:
                listener(self.statistics(run_uid))
        return answer

    def run_statistics(self, run_uid: str) -> RunStatistics:
        """Return the statistics of a run."""
        self._called()
        self._require_known(run_uid)
        return self.statistics(run_uid)

    def reports(self, run_uid: str) -> list[FrameReport]:
        """Return the reports of a run's frames."""
        self._called()
        self._require_known(run_uid)
        return [self.report(request) for request in self._of(run_uid)] if self.converts else []

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

    def follow(self, run_uid: str, listener: Listener) -> Callable[[], None]:
        """Have `listener` called with what becomes of a run."""
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

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Have `watcher` called with what is known of the server."""
        key = object()
        self.watchers[key] = watcher
        return lambda: self.watchers.pop(key, None) and None

    def statistics(self, run_uid: str) -> RunStatistics:
        """Return what the server would say of a run now; it is no call."""
        frames = len(self._of(run_uid))
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

    def look(self, server: ServerState) -> None:
        """Know this of the server, and show it, as the poll of a real link does."""
        self.server = server
        for watcher in list(self.watchers.values()):
            watcher(server)

    def go_down(self) -> None:
        """Have the server be down: calls fail, and are to be tried again."""
        self.look(self.server.lost("it was switched off"))

    def go_up(self) -> None:
        """Have the server be back."""
        self.look(UP)

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
        if not self.answers.wait(PATIENCE):
            raise TimeoutError(f"the test did not set `answers` within {PATIENCE:g} s")
        if self.troubles:
            raise self.troubles.popleft()
        if self.server.down:
            raise LinkDownError(f"{self.address}: found no answer; expected a running server.")

    def _take(self, fields: Mapping[str, Any], answer: SubmitAnswer) -> None:
        try:
            request = FrameRequest.model_validate(fields)
        except ValidationError as error:
            answer.refused.append(RefusedRequest(source=str(fields.get("source")), reason=str(error)))
            return
        if request.source in self.refused:
            answer.refused.append(RefusedRequest(source=request.source, reason=f"{request.source} is outside"))
            return
        if request.run_uid is not None and request.run_uid not in self.announced:
            self.announced.append(request.run_uid)
        key = request.key or f"without a key: {len(self.requests)}"
        self.requests.setdefault(key, request)
        answer.jobs.append(AcceptedJob(job_id=key, source=request.source))

    def _of(self, run_uid: str) -> list[FrameRequest]:
        return [request for request in self.requests.values() if request.run_uid == run_uid]

    def _require_known(self, run_uid: str) -> None:
        if run_uid not in self.announced:
            raise UnknownRunError(run_uid)

    def _unfollow(self, key: object) -> None:
        with self._changed:
            self.listeners.pop(key, None)
            self._changed.notify_all()


def converted_beside(request: FrameRequest) -> FrameReport:
    """Say that a frame was converted, to beside the folder `raw`. There is no such file."""
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


def really_converted(request: FrameRequest) -> FrameReport:
    """Convert a frame, in this process, and say what became of it.

    Each call converts it, so a report that is asked for twice is made twice.
    """
    from tango_server.conversion import convert_file  # noqa: PLC0415 - who only pretends needs no OpenCV
    from tango_server.conversion.errors import ConversionError  # noqa: PLC0415 - as above
    from tango_server.recipe import Recipe  # noqa: PLC0415 - as above

    fields = {**request.metadata, "run": request.run_uid or "", "seq_num": request.seq_num or 0}
    try:
        made = convert_file(request.source, request.recipe or Recipe.preset("xdi"), fields=fields)
    except ConversionError as error:
        return converted_beside(request).model_copy(update={"outcome": "failed", "output": None, "reason": str(error)})
    own = {name: getattr(request, name) for name in ("run_uid", "stream", "seq_num")}
    return made.model_copy(update={"job_id": request.key, "latency": made.conversion_time, **own})
