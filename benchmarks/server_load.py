"""Many small frames: the rate, the memory, what commands take meanwhile; and a queue that grows long."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.server_commands import RUN, asking
from benchmarks.server_rig import MEMORY_FOLDER, WORKERS, Memory, Rig, memory, rig, small_frames, wait_for

BATCH = 50  # frames of one Submit, as the callback sends them
_SPARE = 500  # frames of the second client, which takes them again and again
_LOOK = 0.5  # s; a look lists thousands of files, and is not to be a load of its own
_ROOMY = {"backlog_limit": 1_000_000, "run_timeout": 600}


def under_load(jobs: int, *, sidecars: bool) -> list[str]:
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
    return [
        f"{'Each with its sidecar' if sidecars else 'No sidecars'}: accepted at {jobs / accepted:.0f} jobs/s,",
        f"converted at **{jobs / visible:.0f} frames/s**.",
        "",
        *asked.table(),
        "",
        asked.verdict(),
        "",
        *_memory_table({"before": before, f"after {jobs} jobs": after}),
        "",
    ]


def long_queue(lengths: Sequence[int]) -> list[str]:
    """Return the memory of the server with ever more jobs in its queue."""
    with rig(MEMORY_FOLDER, **_ROOMY) as server:
        frames = small_frames(server.raw, "frame", max(lengths), sidecars=False)
        server.proxy.command_inout("Pause")
        rows, sent, started = {"empty": memory(server.server)}, 0, time.perf_counter()
        for length in lengths:
            for start in range(sent, length, BATCH):
                server.submit(frames[start : min(start + BATCH, length)])
            sent = length
            rows[f"{server.queued()} queued"] = memory(server.server)
        rate = sent / (time.perf_counter() - started)
    grown = (list(rows.values())[-1].server - rows["empty"].server) * 1e3 / sent
    return [
        f"Frames of 64 x 64, queued in calls of {BATCH} at {rate:.0f} jobs/s while the server pauses:",
        f"{grown:.3f} kB of memory a job.",
        "",
        *_memory_table(rows),
        "",
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


def _memory_table(rows: dict[str, Memory]) -> list[str]:
    lines = ["| | server | server at its peak | workers together |", "|---|---|---|---|"]
    for name, taken in rows.items():
        lines.append(f"| {name} | {taken.server:.1f} MB | {taken.server_peak:.1f} MB | {taken.workers:.0f} MB |")
    return lines
