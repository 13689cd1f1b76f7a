"""The simulated detector as an ophyd-async device, for step and fly scans."""

import asyncio
import inspect
import itertools
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from ophyd_async.core import (
    DetectorAcquireLogic,
    DetectorDataLogic,
    DetectorTriggerLogic,
    PathProvider,
    StandardDetector,
    StreamableDataProvider,
    StreamResourceDataProvider,
    StreamResourceInfo,
    StrictEnum,
    TriggerInfo,
    derived_signal_r,
    soft_signal_r_and_setter,
    soft_signal_rw,
)

from petif_bluesky.sim.acquisition import Acquisition, Exposure
from petif_bluesky.sim.pattern import FULL_SIZE, Pattern, wavelength
from petif_bluesky.sim.run_stem import RunStem

_log = logging.getLogger(__name__)


class Shutter(StrictEnum):
    """The shutter in the beam."""

    OPEN = "open"
    CLOSED = "closed"


class SimulatedPerkinElmer(StandardDetector):
    """A Perkin-Elmer XRD1621 flat panel read by QXRD, as an ophyd-async detector.

    Writes one TIFF and one sidecar for each frame. Each staging, and each change of the number of frames per event,
    starts a new series of file names, `sample_0001-00000.tif` and so on; the path provider gives the folder, created if
    needed, and `sample`. The stream resource has a template for these names. Therefore, a frame is never renamed: if
    another program has written a file of the series, the acquisition fails. While `shutter` is closed, frames are dark.

    Parameters
    ----------
    path_provider
        Gives the folder and the start of the file names.
    shape
        (H, W) of the panel in pixels. The distance is scaled with it, so that the same rings are visible.
    motor
        Anything readable, of ophyd or ophyd-async, whose first reading moves the rings by 1 % per unit.
    exposure_time
        Exposure time in s; the `livetime` of `prepare` replaces it.
    pixel_type
        float32 (dark-subtracted), uint16 or uint32 (raw).
    seed
        Seed of noise and bad pixels; two detectors with the same seed give the same frames.
    spot
        Peak counts of a diffraction spot, which saturates uint16; 0 for none.
    write_delay
        Delay in s between the end of an exposure and its file, as on a network share.

    """

    def __init__(
        self,
        path_provider: PathProvider,
        *,
        shape: tuple[int, int] = (FULL_SIZE, FULL_SIZE),
        motor: Any = None,
        exposure_time: float = 0.1,
        pixel_type: str = "float32",
        seed: int = 0,
        spot: float = 0.0,
        write_delay: float = 0.0,
        name: str = "",
    ) -> None:
        pattern = Pattern.of_panel(shape, pixel_type, seed, spot)
        self.shutter = soft_signal_rw(Shutter, Shutter.OPEN)
        self.exposure_time = soft_signal_rw(float, exposure_time, units="s", precision=3)
        self.beam_center_x = soft_signal_rw(float, pattern.center[0], units="pixel", precision=2)
        self.beam_center_y = soft_signal_rw(float, pattern.center[1], units="pixel", precision=2)
        self.distance = soft_signal_rw(float, pattern.distance, units="mm", precision=2)
        self.pixel_size = soft_signal_rw(float, pattern.pixel_size, units="um", precision=1)
        self.energy = soft_signal_rw(float, pattern.energy, units="eV", precision=1)
        self.wavelength = derived_signal_r(wavelength, "angstrom", 5, energy=self.energy)
        series = _Series(self, pattern, motor)
        acquire = _AcquireLogic(series, write_delay)
        self.add_detector_logics(_TriggerLogic(self, acquire), acquire, _DataLogic(series, path_provider))
        self.add_config_signals(
            self.exposure_time,
            self.beam_center_x,
            self.beam_center_y,
            self.distance,
            self.pixel_size,
            self.energy,
            self.wavelength,
        )
        super().__init__(name=name)


class _Series:
    """The frames of one series of file names: the n-th frame that is taken has the number n - 1."""

    def __init__(self, detector: SimulatedPerkinElmer, pattern: Pattern, motor: Any) -> None:
        self.pattern = pattern
        self.written, self._set_written = soft_signal_r_and_setter(int)
        self.detector = detector
        self._motor = motor
        self._shots = itertools.count()
        self._stem: RunStem | None = None
        self._numbers = itertools.count()

    def begin(self, directory: Path, file_name: str) -> str:
        """Begin a series; return the template of its file names."""
        self._stem = RunStem(directory, file_name)
        self._numbers = itertools.count()
        self._set_written(0)
        stem = self._stem.stem.replace("{", "{{").replace("}", "}}")
        return f"{stem}-{{:05d}}.tif"

    async def next_exposure(self) -> Exposure:
        """Return the next frame to be taken, with the settings and the motor position of now."""
        if self._stem is None:
            raise RuntimeError(f"{self.detector.name}: cannot take a frame before it is prepared. Call prepare first.")
        return Exposure(
            run=self._stem,
            pattern=await self._current_pattern(),
            seconds=await self.detector.exposure_time.get_value(),
            position=await self._position(),
            dark=await self.detector.shutter.get_value() is Shutter.CLOSED,
            number=next(self._numbers),
            shot=next(self._shots),
        )

    async def take(self, exposure: Exposure, acquisition: Acquisition) -> None:
        """Take a frame."""
        await asyncio.wrap_future(acquisition.start(exposure))
        self._set_written(exposure.number + 1)

    async def _current_pattern(self) -> Pattern:
        detector = self.detector
        current = replace(
            self.pattern,
            center=(await detector.beam_center_x.get_value(), await detector.beam_center_y.get_value()),
            distance=await detector.distance.get_value(),
            energy=await detector.energy.get_value(),
            pixel_size=await detector.pixel_size.get_value(),
        )
        if current != self.pattern:
            self.pattern = current  # else the arrays that it has computed are kept
        return self.pattern

    async def _position(self) -> float:
        """Return the first reading of the motor, 0 without one."""
        if self._motor is None:
            return 0.0
        readings = self._motor.read()
        if inspect.isawaitable(readings):
            readings = await readings
        return float(next(iter(readings.values()))["value"])


class _TriggerLogic(DetectorTriggerLogic):
    """Exposures are timed by the detector itself."""

    def __init__(self, detector: SimulatedPerkinElmer, acquire: "_AcquireLogic") -> None:
        self._detector = detector
        self._acquire = acquire

    async def prepare_internal(self, num: int, livetime: float, deadtime: float) -> None:
        if livetime:
            await self._detector.exposure_time.set(livetime)
        self._acquire.frames, self._acquire.deadtime = num, deadtime

    async def default_trigger_info(self) -> TriggerInfo:
        return TriggerInfo()


class _AcquireLogic(DetectorAcquireLogic):
    """Takes `frames` frames each time it starts, any number if 0, with pauses of `deadtime` s."""

    def __init__(self, series: _Series, write_delay: float) -> None:
        self.frames = 1
        self.deadtime = 0.0
        self._series = series
        self._write_delay = write_delay
        self._acquisition: Acquisition | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start_acquiring(self) -> None:
        if self._acquisition is None:
            self._acquisition = Acquisition(self._write_delay, renames=False)
        self._tasks.append(asyncio.create_task(self._take(self._acquisition)))

    async def wait_for_idle(self) -> None:
        await asyncio.gather(*self._tasks)
        self._tasks.clear()

    async def ensure_stopped(self) -> None:
        """Stop; a frame whose exposure has begun is still written."""
        acquisition, self._acquisition = self._acquisition, None
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if acquisition is not None:
            acquisition.close(wait=False)

    async def _take(self, acquisition: Acquisition) -> None:
        try:
            for number in range(self.frames) if self.frames else itertools.count():
                if number:
                    await asyncio.sleep(self.deadtime)
                exposure = await self._series.next_exposure()
                if self._acquisition is not acquisition:  # stopped: in Python 3.11, reading may swallow a cancellation
                    return
                await self._series.take(exposure, acquisition)
        except Exception:
            _log.exception("%s: acquisition failed", self._series.detector.name)
            raise


class _DataLogic(DetectorDataLogic):
    """Announces each series of files as a stream resource with a template."""

    def __init__(self, series: _Series, path_provider: PathProvider) -> None:
        self._series = series
        self._path_provider = path_provider

    async def prepare_unbounded(self, datakey_name: str) -> StreamableDataProvider:
        place = self._path_provider(datakey_name)
        template = self._series.begin(Path(place.directory_path), place.filename)
        pattern = self._series.pattern
        image = StreamResourceInfo(
            data_key=datakey_name,
            shape=pattern.shape,
            chunk_shape=(1, *pattern.shape),
            dtype_numpy=pattern.dtype_numpy,
            parameters={"template": template},
        )
        return StreamResourceDataProvider(
            uri=place.directory_uri,
            resources=[image],
            mimetype="multipart/related;type=image/tiff",
            collections_written_signal=self._series.written,
        )

    def get_hinted_fields(self, datakey_name: str) -> list[str]:
        return [datakey_name]
