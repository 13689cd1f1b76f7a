"""How long commands take while the server is busy: a second client, in its own process, calls them in turn."""

import itertools
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import median
from typing import Any

import tango

from benchmarks.results import Figure, rows
from benchmarks.server_rig import client, ordered_at

RUN = "load"
GOAL = 100.0  # ms
COUNTERS = ["State", "Status", "QueueLength", "NumProcessed", "NumFailed", "FramesPerSecond", "LatencyP95"]

_PAUSE = 0.005  # s between two calls: a client that asks without a break is a load of its own
_IDS = 5  # job ids of one GetReports
_START_PATIENCE = 30.0

Call = Callable[[], object]
Times = dict[str, list[float]]


@dataclass
class Asked:
    """What the second client has measured, in ms by command; filled when the measurement ends."""

    times: Times = field(default_factory=dict)

    def figures(self, measurement: str) -> list[Figure]:
        """Return what each command took, and how many calls met the goal."""
        found = []
        for name, times in self.times.items():
            quantiles = {"median": median(times), "99 %": ordered_at(times, 0.99), "max": max(times)}
            found += rows(measurement, name, "ms", quantiles)
        every = [taken for times in self.times.values() for taken in times]
        in_time = sum(taken <= GOAL for taken in every)
        return [*found, *rows(measurement, "all calls", "", {"calls": len(every), f"within {GOAL:.0f} ms": in_time})]


@contextmanager
def asking(address: str, spare: Sequence[Path]) -> Iterator[Asked]:
    """Let a second client call every command in turn until the block ends. `spare` are frames that it may submit."""
    context, asked = multiprocessing.get_context("spawn"), Asked()
    begun, ended, answers = context.Event(), context.Event(), context.Queue()
    process = context.Process(target=_ask, args=(address, list(spare), begun, ended, answers))
    process.start()
    try:
        if not begun.wait(_START_PATIENCE):
            raise TimeoutError(f"the second client did not begin within {_START_PATIENCE:g} s")
        yield asked
        ended.set()
        asked.times.update(answers.get(timeout=_START_PATIENCE))
    finally:
        ended.set()
        process.join()


def _ask(address: str, spare: list[Path], begun: Event, ended: Event, answers: Any) -> None:
    calls = _calls(client(address), itertools.cycle(spare))
    times: Times = {name: [] for name in calls}
    begun.set()
    while not ended.is_set():
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - start))
            time.sleep(_PAUSE)
    answers.put(times)


def _calls(proxy: tango.DeviceProxy, spare: Iterator[Path]) -> dict[str, Call]:
    """Return what is called in turn. `GetReports` asks for the jobs that this client has submitted last."""
    job_ids: list[str] = []

    def submit_one() -> None:
        request = {"source": str(next(spare)), "run_uid": RUN}
        answer = json.loads(proxy.command_inout("Submit", json.dumps({"requests": [request]})))
        job_ids.append(answer["jobs"][0]["job_id"])
        del job_ids[:-_IDS]

    submit_one()
    return {
        "State": proxy.state,
        "Status": proxy.status,
        f"read of {len(COUNTERS)} attributes": lambda: proxy.read_attributes(COUNTERS),
        f"GetReports of {_IDS} jobs": lambda: proxy.command_inout("GetReports", json.dumps({"job_ids": job_ids})),
        "GetRunStatistics": lambda: proxy.command_inout("GetRunStatistics", RUN),
        "Submit of one frame": submit_one,
        "AddFiles of one frame": lambda: proxy.command_inout("AddFiles", [str(next(spare))]),
    }
