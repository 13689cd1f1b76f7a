"""Single frames on an idle machine: from the file's end to the output's appearance."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.results import Figure, rows
from benchmarks.server_rig import RECIPE, Rig, image, ordered_at, put, put_sidecar, rig, wait_for
from tango_server.conversion.convert import convert_file

SIZE = 2048
_LOOK = 0.0005
_WARM_UP = 5
_PATIENT = 600  # s; missing files are to be missed until the end


@dataclass(frozen=True)
class Shot:
    """One frame; all in ms. `accepted`: Submit has answered; `visible`: the output has its name.

    `conversion` is the worker's own time, `bare` that of `convert_file` alone on a frame written just before it.
    """

    accepted: float
    visible: float
    conversion: float
    bare: float


class Camera:
    """Writes frames one at a time, submits each as soon as it is closed, and waits for its output."""

    def __init__(self, server: Rig) -> None:
        self._server = server
        self._pixels = image(SIZE)
        self.shots(_WARM_UP)

    def shots(self, count: int) -> list[Shot]:
        """Take frames one after the other."""
        return [self._shot(number) for number in range(count)]

    def _shot(self, number: int) -> Shot:
        source = self._server.raw / f"frame-{number:05d}.tif"
        put_sidecar(source)  # reports are waited for, and they would wait for it
        put(source, self._pixels)
        output = self._server.processed / source.name
        closed = time.perf_counter()
        job_ids = self._server.submit([source], run_uid="shots")
        accepted = time.perf_counter()
        visible = wait_for(output.exists, pause=_LOOK)
        conversion = self._reported(job_ids)
        for path in (output, source):
            path.unlink()
        return Shot(1e3 * (accepted - closed), 1e3 * (visible - closed), 1e3 * conversion, 1e3 * self._bare())

    def _bare(self) -> float:
        """Convert one more frame in this process, as a worker does it; return the time in s."""
        source, output = self._server.root / "bare.tif", self._server.root / "converted.tif"
        put_sidecar(source)
        put(source, self._pixels)
        begun = time.perf_counter()
        convert_file(source, RECIPE, output=output)
        ended = time.perf_counter()
        for path in (output, source):
            path.unlink()
        return ended - begun

    def _reported(self, job_ids: list[str]) -> float:
        """Wait for the report; return the time of the conversion in s."""
        query, answers = json.dumps({"job_ids": job_ids}), []

        def reported() -> bool:
            answers.append(json.loads(self._server.proxy.command_inout("GetReports", query)))
            return answers[-1]["pending"] == 0

        wait_for(reported, pause=0.005)
        (report,) = answers[-1]["reports"]
        if report["outcome"] != "converted":
            raise RuntimeError(report["reason"])
        return float(report["conversion_time"])


def single_frames(parent: Path, where: str, count: int) -> list[Figure]:
    """Return what single frames take on one file system: written, submitted when closed, the output awaited.

    The goal is a median below 60 ms, 95 % below 150 ms, and at most 5 times `convert_file`.
    """
    with rig(parent) as server:
        shots = Camera(server).shots(count)
    times = {
        "Submit answered, median": median(shot.accepted for shot in shots),
        "worker's part, median": median(shot.conversion for shot in shots),
        "convert_file alone, median": median(shot.bare for shot in shots),
    }
    ratio = median(shot.visible / shot.bare for shot in shots)
    return [
        *_closed_to_visible("single frames", where, shots),
        *rows("single frames", where, "ms", times),
        Figure("single frames", where, "closed to visible / convert_file", ratio),
    ]


def behind_missing_files(parent: Path, missing: int, count: int) -> list[Figure]:
    """Return what single frames take with and without missing files before them in the queue."""
    with rig(parent, run_timeout=_PATIENT, timeout=_PATIENT) as server:
        camera = Camera(server)
        without = camera.shots(count)
        server.submit([server.raw / f"missing-{number:05d}.tif" for number in range(missing)], run_uid="missing")
        behind = camera.shots(count)
        still = server.queued()
    name = "behind missing files"
    return [
        *_closed_to_visible(name, "0 missing files", without),
        *_closed_to_visible(name, f"{missing} missing files", behind),
        Figure(name, f"{missing} missing files", "still awaited at the end", still, "files"),
    ]


def _closed_to_visible(measurement: str, case: str, shots: list[Shot]) -> list[Figure]:
    times = [shot.visible for shot in shots]
    quantiles = {"median": median(times), "95 %": ordered_at(times, 0.95), "max": max(times)}
    return rows(measurement, case, "ms", {f"closed to visible, {name}": value for name, value in quantiles.items()})
