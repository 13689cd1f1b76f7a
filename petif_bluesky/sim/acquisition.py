"""Expose frames and write them to disk in the background."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from petif_bluesky.sim.pattern import Pattern
from petif_bluesky.sim.qxrd_file import free_name, write_frame
from petif_bluesky.sim.qxrd_sidecar import Sidecar, write_sidecar
from petif_bluesky.sim.run_stem import RunStem


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """One frame to be taken.

    Attributes
    ----------
    run
        The run that names the frame; kept so that its name stays reserved until the frame is on disk.
    number
        Number of the frame in its run, from 0.
    shot
        Number of the frame since the detector was created, so that no two frames have the same noise.
    seconds
        Exposure time in s.
    position
        Position of the motor that moves the rings.
    dark
        Whether the shutter is closed.

    """

    run: RunStem
    number: int
    pattern: Pattern
    shot: int
    seconds: float
    position: float
    dark: bool = False

    @property
    def predicted_path(self) -> Path:
        """Path of the frame, unless that file already exists."""
        return self.run.directory / f"{self.run.stem}-{self.number:05d}.tif"

    def image(self) -> NDArray[Any]:
        """Return the (H, W) pixels, the same in each call."""
        return self.pattern.dark(self.shot) if self.dark else self.pattern.frame(self.shot, self.position)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A frame: the path where it is or soon will be, the sum of its pixels, and the time of acquisition."""

    path: Path
    total: float
    acquired: datetime


class Acquisition:
    """Camera and disk of one detector, which expose and write frames one after another.

    Parameters
    ----------
    write_delay
        Delay in s between the end of an exposure and its file; with 0 the exposure is done when frame and sidecar are
        on disk.
    renames
        Whether a frame whose file exists gets another name (`free_name`), or is an error (FileExistsError).

    """

    def __init__(self, write_delay: float = 0.0, *, renames: bool = True) -> None:
        self._write_delay = write_delay
        self._name_of: Callable[[Path], Path] = free_name if renames else Path
        self._camera = ThreadPoolExecutor(1, "sim-camera")
        self._disk = ThreadPoolExecutor(1, "sim-disk")
        self._changed = threading.Condition()
        self._unwritten = 0
        self._failure: BaseException | None = None

    def start(self, exposure: Exposure) -> Future[Frame]:
        """Start an exposure after the previous ones."""
        future = self._camera.submit(self._expose, exposure)
        self._follow(future)
        return future

    def wait_written(self, timeout: float | None = None) -> None:
        """Wait until all frames started so far and their sidecars are on disk.

        Raises
        ------
        TimeoutError
            If it takes longer than `timeout` seconds.
        Exception
            The first error since the last call, if a frame could not be written.

        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._unwritten == 0, timeout):
                raise TimeoutError(f"{self._unwritten} frames are not on disk after {timeout} s")
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def close(self, *, wait: bool = True) -> None:
        """Stop the threads once all frames started so far are on disk; no more exposures can be started."""
        self._camera.shutdown(wait=wait)
        self._disk.shutdown(wait=wait)

    def _follow(self, future: Future[Any]) -> None:
        with self._changed:
            self._unwritten += 1
        future.add_done_callback(self._settle)

    def _settle(self, future: Future[Any]) -> None:
        with self._changed:
            self._unwritten -= 1
            if not future.cancelled():
                self._failure = self._failure or future.exception()
            self._changed.notify_all()

    def _expose(self, exposure: Exposure) -> Frame:
        ends = time.monotonic() + exposure.seconds
        image = exposure.image()
        total = float(image.sum(dtype=float))
        _sleep_until(ends)
        frame = Frame(path=self._name_of(exposure.predicted_path), total=total, acquired=datetime.now())
        if self._write_delay > 0:
            due = time.monotonic() + self._write_delay
            self._follow(self._disk.submit(_write_later, due, exposure, frame))
        else:
            _write(exposure, frame, image)
        return frame


def _write_later(due: float, exposure: Exposure, frame: Frame) -> None:
    """Write a frame at time `due` (monotonic); its image is computed again, to keep no queue of images in memory."""
    _sleep_until(due)
    _write(exposure, frame, exposure.image())


def _write(exposure: Exposure, frame: Frame, image: NDArray[Any]) -> None:
    write_frame(frame.path, image, document_name=frame.path.as_posix(), acquired=frame.acquired)
    pattern = exposure.pattern
    sidecar = Sidecar(
        shape=pattern.shape,
        pixel_type=pattern.pixel_type,
        exposure_time=exposure.seconds,
        acquired=frame.acquired,
        center=pattern.center,
        distance=pattern.distance,
        energy=pattern.energy,
        pixel_size=pattern.pixel_size,
        image_number=exposure.number,
    )
    write_sidecar(frame.path, sidecar)


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))
