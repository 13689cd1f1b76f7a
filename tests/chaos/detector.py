"""The load: a detector that writes frames at a steady rate, stage by stage as QXRD does, whatever the server does."""

import hashlib
import queue
import random
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import tifffile

from petif_bluesky.sim.qxrd_file import write_stages
from petif_bluesky.sim.qxrd_sidecar import Sidecar, write_sidecar
from tests.chaos.frames import PlannedFrame, dark_of, image_of, mask_of
from tests.chaos.ground import Ground
from tests.chaos.scale import Scale
from tests.hostile import Attempts

_WRITERS = 4
_STAGE_PAUSE = 0.05
_DARK_DELAY = 1.0


@dataclass(frozen=True, slots=True)
class Written:
    """A frame on disk: its file, and the digests of what was written (empty: no sidecar)."""

    frame: PlannedFrame
    path: Path
    digest: str
    sidecar_digest: str


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Detector:
    """Takes `frames` at the scale's rate; puts each into `announced`, as the client hears of it, and into `written`.

    Those with the numbers `summed` are put into `summed`, too.
    """

    def __init__(
        self, seed: int, frames: tuple[PlannedFrame, ...], scale: Scale, ground: Ground, summed: Collection[int]
    ) -> None:
        self._seed = seed
        self._frames = frames
        self._scale = scale
        self._ground = ground
        self.announced: queue.SimpleQueue[tuple[PlannedFrame, Path]] = queue.SimpleQueue()
        self.summed: queue.SimpleQueue[tuple[PlannedFrame, Path]] = queue.SimpleQueue()
        self._summed = summed
        self._writing: list[Future[Written]] = []
        self._pool = ThreadPoolExecutor(_WRITERS, thread_name_prefix="detector")
        self._darks: dict[str, Future[None]] = {}
        self._dark_writer = ThreadPoolExecutor(1, thread_name_prefix="darks")
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._take, name="exposures")

    def start(self) -> None:
        """Begin to take frames."""
        self._write_mask(0)
        self._thread.start()

    def stop(self) -> None:
        """Take no more frames; the ones begun are finished."""
        self._stopped.set()
        self._thread.join()
        self._pool.shutdown()
        self._dark_writer.shutdown()

    @property
    def taking(self) -> bool:
        """Whether more frames are to come."""
        return self._thread.is_alive()

    @property
    def number_written(self) -> int:
        """How many frames are on disk."""
        return sum(future.done() for future in list(self._writing))

    def written(self) -> list[Written]:
        """Wait until all frames are on disk and return them; raise what went wrong, if something did."""
        self._thread.join()
        for dark in self._darks.values():
            dark.result()
        return [future.result() for future in self._writing]

    def _take(self) -> None:
        begin = time.monotonic()
        for frame in self._frames:
            if self._stopped.wait(max(0.0, begin + frame.number / self._scale.rate - time.monotonic())):
                return
            if frame.number == len(self._frames) // 2:
                self._write_mask(1)
            if frame.corrected and frame.run_uid is not None and frame.run_uid not in self._darks:
                self._darks[frame.run_uid] = self._dark_writer.submit(self._write_dark, frame.run_uid)
            self._writing.append(self._pool.submit(self._write, frame))

    def _write(self, frame: PlannedFrame) -> Written:
        path = self._ground.raw(frame.place) / frame.name
        if frame.hostile:
            Attempts(path.parent, random.Random(f"{self._seed}/{frame.number}")).write(path)
            self._announce(frame, path)
            return Written(frame, path, digest_of(path), "")
        image = image_of(self._seed, frame, self._scale.size)
        stages = write_stages(path, image, document_name=path.as_posix(), acquired=datetime.now())
        for number, _ in enumerate(self._slowly(stages, frame), start=1):
            if number == 1 and frame.early:
                self._announce(frame, path)
            if number == frame.unfinished:
                return Written(frame, path, digest_of(path), "")
        digest = digest_of(path)
        if not frame.early:
            self._announce(frame, path)
        sidecar = self._write_sidecar(frame.pixel_type, frame.number, path) if frame.sidecar else ""
        return Written(frame, path, digest, sidecar)

    def _announce(self, frame: PlannedFrame, path: Path) -> None:
        self.announced.put((frame, path))
        if frame.number in self._summed:
            self.summed.put((frame, path))

    def _write_mask(self, version: int) -> None:
        part = self._ground.mask.with_suffix(".part")
        tifffile.imwrite(part, mask_of(version, self._scale.size))
        part.replace(self._ground.mask)

    def _write_dark(self, run_uid: str) -> None:
        """Write the dark of a run stage by stage, after frames that it is to correct."""
        time.sleep(_DARK_DELAY)
        path, dark = self._ground.dark(run_uid), dark_of(run_uid, self._scale.size)
        for _ in write_stages(path, dark, document_name=path.as_posix(), acquired=datetime.now()):
            time.sleep(_STAGE_PAUSE)
        self._write_sidecar(dark.dtype.name, 0, path)

    def _slowly(self, stages: Iterator[object], frame: PlannedFrame) -> Iterator[object]:
        """Give the server time to see an early frame in each of its unfinished stages."""
        for stage in stages:
            yield stage
            if frame.early:
                time.sleep(_STAGE_PAUSE)

    def _write_sidecar(self, pixel_type: str, number: int, path: Path) -> str:
        size = self._scale.size
        sidecar = Sidecar(
            shape=(size, size),
            pixel_type=pixel_type,
            exposure_time=0.1,
            acquired=datetime.now(),
            center=(0.54 * size, 0.43 * size),
            distance=0.4 * size,
            energy=42_000.0,
            image_number=number,
        )
        return digest_of(write_sidecar(path, sidecar))
