"""The settings of an image, as its descriptor and event have them."""

from typing import Any

import pytest

from petif_bluesky.documents.detector_settings import DetectorSettings, SettingsReader
from tests.unit.documents import IMAGE


def read(configuration: dict[str, Any], data: dict[str, Any] | None = None, **units: str) -> DetectorSettings:
    """The settings of pe with a configuration and the data of an event."""
    reader = SettingsReader()
    keys = {key: {"units": unit} for key, unit in units.items()}
    objects = {"pe_image": "pe", "pe_2_gain": "pe_2", "pe_exposure_time": "pe_exposure_time"}
    reader.describe(
        {
            "uid": "d",
            "data_keys": {"pe_image": {**IMAGE, "object_name": "pe"}}
            | {key: {"object_name": objects.get(key, "pe")} for key in data or {}},
            "configuration": {"pe": {"data": configuration, "data_keys": keys}},
        }
    )
    return reader.of("d", "pe_image", (48, 64), None if data is None else {"data": data})[0]


@pytest.mark.parametrize(
    ("configuration", "seconds"),
    [
        ({}, None),
        ({"pe_cam_acquire_time": 0.1}, 0.1),
        ({"pe-drv-acquire_time": 0.1}, 0.1),
        ({"pe_exposure_time": 2}, 2.0),
        ({"pe_exposure_time": 10.0, "pe_cam_acquire_time": 1.0}, 1.0),
        ({"pe_exposure_time": 100}, 0.1),
        ({"pe_exposure_time": "long"}, None),
        ({"pe_exposure_time": float("nan")}, None),
        ({"cam_exposure_time": 1.0}, None),
    ],
)
def test_time_of_one_exposure(configuration: dict[str, Any], seconds: float | None) -> None:
    units = {"pe_exposure_time": "ms"} if configuration == {"pe_exposure_time": 100} else {}
    assert read(configuration, **units).exposure_time == seconds


@pytest.mark.parametrize(
    ("configuration", "gains", "gain"),
    [
        ({"pe_cam_gain": 2}, {"cam_gain": 2}, 2),
        ({"pe-drv-cameraGain": 1.5}, {"drv-cameraGain": 1.5}, 1.5),
        ({"pe_camera_gain": "high"}, {"camera_gain": "high"}, None),
        ({"pe_cam_gain": 1.0, "pe_cam_pe_gain": 2.0}, {"cam_gain": 1.0, "cam_pe_gain": 2.0}, None),
        ({"pe_cam_gain": True, "pe_cam_again": 3.0}, {}, None),
    ],
)
def test_gains(configuration: dict[str, Any], gains: dict[str, Any], gain: float | None) -> None:
    settings = read(configuration)
    assert (settings.gains, settings.gain) == (gains, gain)


def test_readings_override_the_configuration() -> None:
    settings = read({"pe_exposure_time": 1.0, "pe_gain": 1.0}, {"pe_exposure_time": 2.0, "pe_2_gain": 7.0})
    assert (settings.exposure_time, settings.gains) == (2.0, {"gain": 1.0})


def test_summed_exposures_never_take_the_dark_of_one_long_one() -> None:
    summed = read({"pe_exposure_time": 10.0, "pe_cam_acquire_time": 1.0, "pe_cam_num_images": 10})
    long = read({"pe_exposure_time": 10.0, "pe_cam_acquire_time": 10.0, "pe_cam_num_images": 1})
    assert not summed.fits(long)
    assert summed.fits(read({"pe_exposure_time": 1.0, "pe_cam_acquire_time": 1.0, "pe_cam_num_images": 1}))


def test_gains_of_another_name_are_unknown() -> None:
    assert read({"pe_gain": 1.0}).not_compared(read({"pe_cam_gain": 2.0})) == ["exposure time", "gain"]
