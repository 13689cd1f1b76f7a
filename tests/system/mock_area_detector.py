"""ophyd-async's areaDetector devices without an IOC: in mock mode, with the part of the IOC that writes files."""

import asyncio
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
from ophyd_async.core import PathProvider, callback_on_mock_put, set_mock_value
from ophyd_async.epics.adcore import ADBaseDataType, ADImageMode, ADWriterFactory
from ophyd_async.epics.adsimdetector import SimDetector

SHAPE = (24, 32)
_PERIOD = 0.02  # s between frames


class MockAreaDetector(SimDetector):
    """An areaDetector that writes TIFF or HDF5 files; the numbers of its frames are in their pixels."""

    def __init__(self, writer: str, path_provider: PathProvider, name: str) -> None:
        super().__init__(f"{name.upper()}:", getattr(ADWriterFactory, writer)(path_provider), name=name)
        self.writer: Any = getattr(self, writer)
        self._taken = 0
        self._acquiring: asyncio.Task[None] | None = None

    async def connect_mock(self) -> None:
        """Connect, and be the IOC from now on."""
        await self.connect(mock=True)
        set_mock_value(self.driver.data_type, ADBaseDataType.UINT16)
        set_mock_value(self.driver.array_size_y, SHAPE[0])
        set_mock_value(self.driver.array_size_x, SHAPE[1])
        set_mock_value(self.writer.file_path_exists, True)
        callback_on_mock_put(self.writer.capture, self._capture)
        callback_on_mock_put(self.driver.acquire, self._acquire)

    def _capture(self, start: bool) -> None:
        if start:
            set_mock_value(self.writer.num_captured, 0)

    async def _acquire(self, start: bool) -> None:
        if self._acquiring is not None:
            self._acquiring.cancel()
        self._acquiring = asyncio.create_task(self._expose()) if start else None

    async def _expose(self) -> None:
        count = await self.driver.num_images.get_value()
        assert await self.driver.image_mode.get_value() is ADImageMode.MULTIPLE
        for _ in range(count):
            await asyncio.sleep(_PERIOD)
            number = await self.writer.num_captured.get_value()
            await self._write(number)
            set_mock_value(self.writer.num_captured, number + 1)
        set_mock_value(self.driver.acquire, False)

    async def _write(self, number: int) -> None:
        image = np.arange(np.prod(SHAPE), dtype=np.uint16).reshape(SHAPE) + np.uint16(1000 * self._taken)
        self._taken += 1
        folder = Path(await self.writer.file_path.get_value())
        name = await self.writer.file_name.get_value()
        template = await self.writer.file_template.get_value()
        folder.mkdir(parents=True, exist_ok=True)
        if template.endswith(".h5"):
            with h5py.File(template % (f"{folder}/", name), "a") as file:
                frames = file.require_dataset("entry/data/data", (number, *SHAPE), "u2", maxshape=(None, *SHAPE))
                frames.resize(number + 1, axis=0)
                frames[number] = image
        else:
            tifffile.imwrite(template % (f"{folder}/", name, number), image)
