"""The simulated detector as an ophyd Device."""

import itertools
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from event_model import compose_resource
from ophyd import Component, Device, DeviceStatus, Kind, Signal
from ophyd.signal import AttributeSignal

from petif_bluesky.sim.acquisition import Acquisition, Exposure, Frame
from petif_bluesky.sim.pattern import FULL_SIZE, Pattern, wavelength
from petif_bluesky.sim.run_stem import RunStem

_TEMPLATE = "%s%s-%5.5d.tif"


class ExternalImage(Signal):
    """The frame in events: the id of a datum document."""

    def describe(self) -> dict[str, dict[str, Any]]:
        """Describe the image rather than the datum id."""
        pattern = self.parent.pattern
        return {
            self.name: {
                "source": self.source_name,
                "dtype": "array",
                "dtype_numpy": pattern.dtype_numpy,
                "shape": [1, *pattern.shape],
                "external": "FILESTORE:",
            }
        }


class Shutter(Signal):
    """The shutter in the beam: "open" or "closed"."""

    def check_value(self, value: object, **kwargs: Any) -> None:
        """Refuse other words."""
        super().check_value(value, **kwargs)
        if value not in {"open", "closed"}:
            raise ValueError(f'{self.name} must be "open" or "closed", not {value!r}')


class Setting(Signal):
    """A number with a unit."""

    def __init__(self, *args: Any, units: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._units = units

    def describe(self) -> dict[str, dict[str, Any]]:
        """Describe the number with its unit."""
        return {name: {**key, "units": self._units} for name, key in super().describe().items()}


class DerivedSetting(Setting, AttributeSignal):
    """A number with a unit, derived from other settings."""


@dataclass(kw_only=True)
class _Run:
    """State from stage to unstage."""

    stem: RunStem
    bundle: Any
    numbers: Iterator[int]
    documents: list[tuple[str, dict[str, Any]]]


class SimulatedPerkinElmer(Device):
    """A Perkin-Elmer XRD1621 flat panel read by QXRD, which writes one TIFF and one sidecar for each frame.

    Each staging starts a new series of file names, `sample_0001-00000.tif` and so on in `directory`, which is created
    if needed. If a file nevertheless exists, `-00001` is appended as QXRD does; `full_file_name` has the actual name.
    While `shutter` is "closed", frames are dark.

    Parameters
    ----------
    directory
        Folder for the frames.
    file_name
        Start of the file names.
    shape
        (H, W) of the panel in pixels. The distance is scaled with it, so that the same rings are visible.
    motor
        An ophyd positioner, or anything readable, whose first reading moves the rings by 1 % per unit.
    exposure_time
        Exposure time in s.
    pixel_type
        float32 (dark-subtracted), uint16 or uint32 (raw).
    seed
        Seed of noise and bad pixels; two detectors with the same seed give the same frames.
    spot
        Peak counts of a diffraction spot, which saturates uint16; 0 for none.
    write_delay
        Delay in s between the end of the trigger and the file, as on a network share.

    """

    image = Component(ExternalImage, value="", kind=Kind.normal)
    full_file_name = Component(Signal, value="", kind=Kind.normal)
    stats_total = Component(Signal, value=0.0, kind=Kind.hinted)

    shutter = Component(Shutter, value="open", kind=Kind.omitted)

    directory = Component(Signal, value="", kind=Kind.config)
    file_name = Component(Signal, value="", kind=Kind.config)
    exposure_time = Component(Setting, value=0.0, units="s", kind=Kind.config)
    beam_center_x = Component(Setting, value=0.0, units="pixel", kind=Kind.config)
    beam_center_y = Component(Setting, value=0.0, units="pixel", kind=Kind.config)
    distance = Component(Setting, value=0.0, units="mm", kind=Kind.config)
    pixel_size = Component(Setting, value=200.0, units="um", kind=Kind.config)
    energy = Component(Setting, value=0.0, units="eV", kind=Kind.config)
    wavelength = Component(DerivedSetting, "_wavelength", units="angstrom", write_access=False, kind=Kind.config)

    def __init__(
        self,
        prefix: str = "",
        *,
        name: str,
        directory: str | Path,
        file_name: str = "sample",
        shape: tuple[int, int] = (FULL_SIZE, FULL_SIZE),
        motor: Any = None,
        exposure_time: float = 0.1,
        pixel_type: str = "float32",
        seed: int = 0,
        spot: float = 0.0,
        write_delay: float = 0.0,
        **kwargs: Any,
    ) -> None:
        self._pattern = Pattern.of_panel(shape, pixel_type, seed, spot)
        super().__init__(prefix, name=name, **kwargs)
        self._motor = motor
        self._shots = itertools.count()
        self._acquisition = Acquisition(write_delay)
        self._run: _Run | None = None
        self.directory.put(str(Path(directory).absolute()))
        self.file_name.put(file_name)
        self.exposure_time.put(exposure_time)
        self.beam_center_x.put(self._pattern.center[0])
        self.beam_center_y.put(self._pattern.center[1])
        self.distance.put(self._pattern.distance)
        self.energy.put(self._pattern.energy)

    @property
    def pattern(self) -> Pattern:
        """The diffraction pattern for the current settings."""
        current = replace(
            self._pattern,
            center=(self.beam_center_x.get(), self.beam_center_y.get()),
            distance=self.distance.get(),
            energy=self.energy.get(),
            pixel_size=self.pixel_size.get(),
        )
        if current != self._pattern:
            self._pattern = current
        return self._pattern

    def stage(self) -> list[object]:
        """Start a series of file names and announce it in a resource document."""
        devices: list[object] = super().stage()
        try:
            self._run = self._new_run()
        except (OSError, ValueError):
            self.unstage()
            raise
        return devices

    def unstage(self) -> list[object]:
        """End the series; frames not yet on disk are still written."""
        self._run = None
        devices: list[object] = super().unstage()
        return devices

    def trigger(self) -> Any:
        """Take one frame. The status is done when frame and sidecar are on disk, or `write_delay` earlier."""
        run = self._staged_run()
        datum = run.bundle.compose_datum(datum_kwargs={"point_number": next(run.numbers)})
        exposure = Exposure(
            run=run.stem,
            number=datum["datum_kwargs"]["point_number"],
            pattern=self.pattern,
            shot=next(self._shots),
            seconds=self.exposure_time.get(),
            position=self._position(),
            dark=self.shutter.get() == "closed",
        )
        run.documents.append(("datum", datum))
        status = DeviceStatus(self)
        future = self._acquisition.start(exposure)
        future.add_done_callback(partial(self._finish, status, datum["datum_id"]))
        return status

    def collect_asset_docs(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the new resource and datum documents, each once."""
        if self._run is not None:
            documents, self._run.documents = self._run.documents, []
            yield from documents

    def wait_written(self, timeout: float | None = None) -> None:
        """Wait until all frames triggered so far are on disk with their sidecars; see `Acquisition.wait_written`."""
        self._acquisition.wait_written(timeout)

    def destroy(self) -> None:
        """Stop the threads of the detector once its frames are on disk."""
        self._acquisition.close()
        super().destroy()

    @property
    def _wavelength(self) -> float:
        return wavelength(self.energy.get())

    def _new_run(self) -> _Run:
        directory = Path(self.directory.get()).absolute()
        stem = RunStem(directory, self.file_name.get())
        bundle = compose_resource(
            spec="AD_TIFF",
            root=directory.anchor,
            resource_path=str(directory.relative_to(directory.anchor)),
            resource_kwargs={"template": _TEMPLATE, "filename": stem.stem, "frame_per_point": 1},
        )
        return _Run(stem=stem, bundle=bundle, numbers=itertools.count(), documents=[("resource", bundle.resource_doc)])

    def _staged_run(self) -> _Run:
        if self._run is None:
            raise RuntimeError(f"{self.name}: cannot take a frame before staging. Call stage first.")
        return self._run

    def _position(self) -> float:
        """Return the first reading of the motor, 0 without one."""
        if self._motor is None:
            return 0.0
        return float(next(iter(self._motor.read().values()))["value"])

    def _finish(self, status: Any, datum_id: str, future: Future[Frame]) -> None:
        """Publish the result of a trigger; runs in the thread that took the frame."""
        error = future.exception()
        if error is not None:
            status.set_exception(error)
            return
        frame = future.result()
        timestamp = frame.acquired.timestamp()
        self.image.put(datum_id, timestamp=timestamp)
        self.full_file_name.put(str(frame.path), timestamp=timestamp)
        self.stats_total.put(frame.total, timestamp=timestamp)
        status.set_finished()
