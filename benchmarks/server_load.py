"""Many small frames: the rate, the memory, what commands take meanwhile; and a queue that grows long."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.results import Figure, rows
from benchmarks.server_commands import RUN, asking
from benchmarks.server_rig import MEMORY_FOLDER, WORKERS, Memory, Rig, memory, rig, small_frames, wait_for

BATCH = 50  # frames of one Submit, as the callback sends them
_SPARE = 500  # frames of the second client, which takes them again and again
_LOOK = 0.5  # s; a look lists thousands of files, and is not to be a load of its own
_ROOMY = {"backlog_limit": 1_000_000, "run_timeout": 600}


def under_load(jobs: int, *, sidecars: bool) -> list[Figure]:
    """Return what 10,000 or so small frames through Submit show."""
    with rig(MEMORY_FOLDER, **_ROOMY) as server:
        frames = small_frames(server.raw, "frame", jobs, sidecars=sidecars)
        spare = small_frames(server.raw, "spare", _SPARE, sidecars=sidecars)
        server.submit(spare[:WORKERS])  # the workers have started and loaded what they need
        server.wait_until_done()
        before = memory(server.server)
        with asking(server.server.address, spare) as asked:
            started = time.perf_counter()
            batches = _submit_all(server, frames)
            accepted = time.perf_counter() - started
            visible = wait_for(lambda: server.visible("frame") == jobs, pause=_LOOK) - started
        server.wait_until_done()
        _check(server, jobs)
        after = memory(server.server)
    asked.times[f"Submit of {BATCH} frames"] = batches
    name = f"small frames, {'with' if sidecars else 'without'} sidecars"
    return [
        *rows(name, f"{jobs} frames of 64 x 64", "1/s", {"accepted": jobs / accepted, "converted": jobs / visible}),
        *asked.figures(name),
        *_memory(name, {"before": before, f"after {jobs} jobs": after}),
    ]


def long_queue(lengths: Sequence[int]) -> list[Figure]:
    """Return the memory of the server with ever more jobs in its queue."""
    with rig(MEMORY_FOLDER, **_ROOMY) as server:
        frames = small_frames(server.raw, "frame", max(lengths), sidecars=False)
        server.proxy.command_inout("Pause")
        sizes, sent, started = {"empty": memory(server.server)}, 0, time.perf_counter()
        for length in lengths:
            for start in range(sent, length, BATCH):
                server.submit(frames[start : min(start + BATCH, length)])
            sent = length
            sizes[f"{server.queued()} queued"] = memory(server.server)
        rate = sent / (time.perf_counter() - started)
    grown = (list(sizes.values())[-1].server - sizes["empty"].server) * 1e3 / sent
    return [
        Figure("long queue", f"{sent} queued", "accepted while paused", rate, "1/s"),
        Figure("long queue", f"{sent} queued", "memory of a job", grown, "kB"),
        *_memory("long queue", sizes),
    ]


def _submit_all(server: Rig, frames: Sequence[Path]) -> list[float]:
    """Submit in batches, as fast as the server takes them; return what each took, in ms."""
    taken = []
    for start in range(0, len(frames), BATCH):
        begun = time.perf_counter()
        server.submit(frames[start : start + BATCH], run_uid=RUN)
        taken.append(1e3 * (time.perf_counter() - begun))
    return taken


def _check(server: Rig, jobs: int) -> None:
    """Raise if anything went wrong: a rate of failures would be no rate."""
    statistics = json.loads(server.proxy.command_inout("GetRunStatistics", RUN))
    if statistics["converted"] != statistics["submitted"] or statistics["submitted"] < jobs:
        raise RuntimeError(f"not all frames of the load were converted: {statistics}")


def _memory(measurement: str, sizes: dict[str, Memory]) -> list[Figure]:
    return [
        figure
        for case, taken in sizes.items()
        for figure in rows(
            measurement, case, "MB",
            {"server": taken.server, "server, peak": taken.server_peak, "workers together": taken.workers},
        )
    ]  # fmt: skip
