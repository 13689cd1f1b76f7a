"""Carries out a plan of disturbances, and puts everything right again."""

import heapq
import itertools
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import psutil

from tests.chaos.facility import Facility
from tests.chaos.ground import Ground
from tests.chaos.plan import Disturbance, Kind
from tests.system.waiting import workers_of

Action = Callable[[], None]
_NEXT_TRY = 0.3
_WRITING_PATIENCE = 1.0


class Disturber:
    """Does what `plan` says at the times that it says, in a thread. `say` is told of each."""

    def __init__(
        self, plan: Sequence[Disturbance], facility: Facility, ground: Ground, say: Callable[[str], None]
    ) -> None:
        self._facility = facility
        self._ground = ground
        self._say = say
        self._order = itertools.count()
        self._due: list[tuple[float, int, Action]] = []
        self.done: Counter[Kind] = Counter()
        self.in_the_middle = 0
        self.fault: BaseException | None = None
        self._stopped = threading.Event()
        for disturbance in plan:
            self._at(disturbance.at, partial(self._begin, disturbance))
        self._thread = threading.Thread(target=self._run, name="disturber")

    def start(self) -> None:
        """Begin to disturb."""
        self._thread.start()

    def stop(self) -> None:
        """Disturb no more, and put right at once what is disturbed."""
        self._stopped.set()
        self._thread.join()

    @property
    def disturbing(self) -> bool:
        """Whether there is more to come."""
        return self._thread.is_alive()

    def _at(self, moment: float, action: Action) -> None:
        heapq.heappush(self._due, (moment, next(self._order), action))

    def _run(self) -> None:
        begin = time.monotonic()
        try:
            while self._due:
                moment, _, action = heapq.heappop(self._due)
                self._stopped.wait(max(0.0, begin + moment - time.monotonic()))
                action()
        except Exception as error:  # noqa: BLE001 - the boundary of the thread: the run ends and shows it
            self.fault = error

    def _begin(self, disturbance: Disturbance) -> None:
        if self._stopped.is_set():
            return
        writing = disturbance.writing and self._is_writing()
        undo = self._do(disturbance)
        if undo is None:  # the server is being started
            later = replace(disturbance, at=disturbance.at + _NEXT_TRY)
            self._at(later.at, partial(self._begin, later))
            return
        self._say(str(disturbance))
        self.done[disturbance.kind] += 1
        self.in_the_middle += writing
        self._at(disturbance.ends, undo)

    def _is_writing(self) -> bool:
        """Return as soon as an output is half written, at the latest after `_WRITING_PATIENCE` s; whether one is."""
        deadline = time.monotonic() + _WRITING_PATIENCE
        while time.monotonic() < deadline:
            if self._ground.half_written():
                return True
        return False

    def _do(self, disturbance: Disturbance) -> Action | None:
        """Disturb, and return what puts it right; None if there was nothing to disturb."""
        ground, facility = self._ground, self._facility
        match disturbance.kind:
            case Kind.KILL_WORKER:
                return self._signal(self._worker(disturbance), signal.SIGKILL)
            case Kind.STOP_WORKER:
                return self._signal(self._worker(disturbance), signal.SIGSTOP)
            case Kind.STOP_SERVER:
                return self._signal(facility.server.process, signal.SIGSTOP)
            case Kind.KILL_SERVER:
                facility.server.kill()
                return _nothing
            case Kind.KILL_DATABASE:
                facility.database.kill(away=disturbance.seconds)
                return _nothing
            case Kind.FILL_OUTPUT:
                ground.fill(ground.output_folder)
                return lambda: ground.empty(ground.output_folder)
            case Kind.FILL_STATE:
                ground.fill(ground.state)
                return lambda: ground.empty(ground.state)
            case Kind.READ_ONLY:
                ground.close_output()
                return ground.open_output
            case Kind.JUMP_CLOCK:
                facility.move_clock(disturbance.value)
                return _nothing

    def _worker(self, disturbance: Disturbance) -> psutil.Process | None:
        server = self._facility.server.process
        try:
            workers = workers_of(server.pid) if server is not None else []
        except psutil.Error:  # it has just ended
            return None
        return workers[int(disturbance.value) % len(workers)] if workers else None

    def _signal(self, process: psutil.Process | None, number: signal.Signals) -> Action | None:
        if process is None:
            return None
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            return None
        return lambda: _go_on(process) if number == signal.SIGSTOP else None


def _go_on(process: psutil.Process) -> None:
    try:
        process.send_signal(signal.SIGCONT)
    except psutil.NoSuchProcess:  # somebody has ended it meanwhile
        return


def _nothing() -> None:
    """There is nothing to put right."""
