"""Does a map of many points stay as fast as it began? Frames of a few exposures a point, summed by a server.

    python -m benchmarks.groups [--points 10000] [--write docs/explanation/performance/groups.csv]

A real server with two workers on a memory file system; 64 x 64 pixels, three exposures a point. Points are submitted as
a session does, one a call, and no more than a few hundred frames are ahead of the server. The goal: the time a frame
in the last tenth is at most 1.2 times that in the second tenth; the first one warms up.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.results import Figure, machine, publish, rows
from benchmarks.server_rig import MEMORY_FOLDER, Rig, memory, rig, small_frames
from tango_server.recipe import Recipe

EXPOSURES = 3
AHEAD = 600  # frames
GOAL = 1.2
_CALL = 10  # points of one Submit
RUN = "map"
RECIPE = Recipe.model_validate({"combine": {"of": "event", "method": "sum"}}).model_dump(mode="json")


def requests_of(point: int, frames: list[Path]) -> list[dict[str, Any]]:
    return [
        {
            "source": str(path), "run_uid": RUN, "stream": "primary", "seq_num": point + 1, "group": f"{RUN}/{point}",
            "member": member, "members": EXPOSURES, "recipe": RECIPE, "key": f"{RUN}/{point}/{member}",
        }
        for member, path in enumerate(frames)
    ]  # fmt: skip


def summed_map(points: int) -> list[Figure]:
    """Return the time a frame in each tenth of a map, and the memory of the server."""
    with rig(MEMORY_FOLDER, backlog_limit=1_000_000, run_timeout=600, sidecar_timeout=0) as server:
        frames = small_frames(server.raw, "frame", points * EXPOSURES, sidecars=False)
        before, started, marks = memory(server.server), time.perf_counter(), []
        for first in range(0, points, _CALL):
            requests = [
                request
                for point in range(first, min(first + _CALL, points))
                for request in requests_of(point, frames[point * EXPOSURES : (point + 1) * EXPOSURES])
            ]
            answer = json.loads(server.proxy.command_inout("Submit", json.dumps({"requests": requests})))
            if answer["refused"]:
                raise RuntimeError(answer["refused"][0]["reason"])
            while server.queued() > AHEAD:
                time.sleep(0.01)
            marks.append(time.perf_counter() - started)
        server.wait_until_done()
        total = time.perf_counter() - started
        after = memory(server.server)
        check(server, points)
    tenth = len(marks) // 10
    times = [
        1e3 * (marks[tenth * (n + 1) - 1] - marks[tenth * n]) / ((tenth - 1) * _CALL * EXPOSURES) for n in range(10)
    ]
    case = f"{points} points x {EXPOSURES} frames"
    return [
        *rows("map through the server", case, "ms/frame", {f"tenth {n + 1}": value for n, value in enumerate(times)}),
        *rows("map through the server", case, "1/s", {"frames": points * EXPOSURES / total}),
        *rows("map through the server", case, "", {"last tenth by second": times[-1] / times[1], "goal": GOAL}),
        *rows("map through the server", case, "MB", {"before": before.server, "after": after.server}),
    ]


def check(server: Rig, points: int) -> None:
    found = json.loads(server.proxy.command_inout("GetRunStatistics", RUN))
    if (found["groups"], found["grouped"], found["pending"]) != (points, points * EXPOSURES, 0):
        raise RuntimeError(f"not every group was made: {found}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=10_000, help="of the map, at least 200 [default: 10000]")
    parser.add_argument("--write", type=Path, help="write the figures to this CSV file")
    arguments = parser.parse_args()
    about = machine(f"python -m benchmarks.groups --points {arguments.points}")
    publish([*about, *summed_map(arguments.points)], arguments.write)


if __name__ == "__main__":
    main()
