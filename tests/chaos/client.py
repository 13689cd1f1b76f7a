"""A well-behaved client: hands every frame in with a key, again until it has an answer, and collects the reports."""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from tango.utils import PyTangoThread

from tango_server.recipe.corrections import DARK_FACTS
from tests.chaos.frames import PlannedFrame
from tests.chaos.ground import Ground
from tests.chaos.line import Line, NoAnswerError

_BATCH = 50
_PAUSE = 0.2
_REPEATED = 0.1
Request = Callable[[PlannedFrame, Path], dict[str, Any]]


class Client:
    """Takes frames from `announced` and gets them accepted, in a thread; collects their reports, in another.

    `job_ids` has every job id that was ever answered for a frame: one, unless something is very wrong.
    """

    def __init__(
        self, address: str, announced: "SimpleQueue[tuple[PlannedFrame, Path]]", seed: int, request: Request
    ) -> None:
        self._request = request
        self._submitting, self._collecting = Line(address), Line(address)
        self._announced = announced
        self._chance = random.Random(seed)
        self.job_ids: dict[int, set[str]] = {}
        self.refused: dict[int, str] = {}
        self.reports: dict[str, dict[str, Any]] = {}
        self.asked_again: Counter[str] = Counter()
        self.fault: BaseException | None = None
        self._awaited: set[str] = set()
        self._handing_in: list[tuple[PlannedFrame, Path]] = []
        self._ending = threading.Event()
        self._threads = [
            PyTangoThread(target=self._guard, args=(work,)) for work in (self._submit_all, self._collect_all)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, whatever is left."""
        self._ending.set()
        for thread in self._threads:
            thread.join()

    @property
    def left(self) -> int:
        """How many frames, roughly, have no job or no report yet."""
        return self._announced.qsize() + len(self._handing_in) + len(self._awaited)

    def _guard(self, work: Any) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - the boundary of the thread: the run ends and shows it
            self.fault = error

    def _submit_all(self) -> None:
        earlier: list[tuple[PlannedFrame, Path]] = []
        while not self._ending.is_set():
            self._handing_in = self._next_batch()
            if earlier and self._chance.random() < _REPEATED:
                self._submit(earlier)  # as a client does that died before it noted the answer
            if self._handing_in and self._submit(self._handing_in):
                earlier, self._handing_in = self._handing_in, []

    def _next_batch(self) -> list[tuple[PlannedFrame, Path]]:
        batch: list[tuple[PlannedFrame, Path]] = []
        deadline = time.monotonic() + _PAUSE
        try:
            while len(batch) < _BATCH:
                batch.append(self._announced.get(timeout=max(0.0, deadline - time.monotonic())))
        except Empty:
            return batch
        return batch

    def _submit(self, batch: list[tuple[PlannedFrame, Path]]) -> bool:
        """Hand in the same batch until it has an answer; return whether it has one."""
        text = json.dumps({"requests": [self._request(frame, path) for frame, path in batch]})
        while not self._ending.is_set():
            try:
                answer = self._submitting.ask("Submit", text)
            except NoAnswerError as error:
                self.asked_again[str(error)] += 1
                self._ending.wait(_PAUSE)
                continue
            self._note(batch, answer)
            return True
        return False

    def _note(self, batch: list[tuple[PlannedFrame, Path]], answer: dict[str, Any]) -> None:
        numbers = {str(path): frame.number for frame, path in batch}
        for job in answer["jobs"]:
            self.job_ids.setdefault(numbers[job["source"]], set()).add(job["job_id"])
            if job["job_id"] not in self.reports:
                self._awaited.add(job["job_id"])
        for refused in answer["refused"]:
            self.refused[numbers[refused["source"]]] = refused["reason"]

    def _collect_all(self) -> None:
        while not self._ending.wait(_PAUSE):
            try:
                reports, unknown = self._collecting.reports(sorted(self._awaited))
            except NoAnswerError:
                continue
            self.reports.update(reports)
            self._awaited.difference_update(reports, unknown)  # what is unknown now will not be known later


def request_of(ground: Ground, frame: PlannedFrame, path: Path) -> dict[str, Any]:
    """Return the request of a frame by itself."""
    corrections = ground.corrections(frame)
    return {
        "source": str(path),
        "recipe": frame.recipe if corrections is None else {**(frame.recipe or {}), "corrections": corrections},
        "metadata": {} if corrections is None else {DARK_FACTS: {"run_uid": frame.run_uid}},
        "key": frame.key,
        "run_uid": frame.run_uid,
        "stream": "primary" if frame.run_uid else None,
        "seq_num": frame.number,
    }
