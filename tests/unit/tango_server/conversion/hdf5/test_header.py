"""What HDF5 files state beside the frames: NeXus, Dectris' masters, areaDetector."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tango_server.conversion.errors import IncompleteFileError, UnsupportedImageError
from tango_server.conversion.frame_header import NO_HEADER
from tests.unit.tango_server.conversion.hdf5.reading import MADE, check, frames, read

Write = Callable[..., Path]
DETECTOR = "entry/instrument/detector"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file with three frames, and what is given as (value, unit) or value."""

    def written(values: dict[str, Any], pixel_type: str = "uint16") -> Path:
        path = tmp_path / "stated.h5"
        with h5py.File(path, "w") as file:
            file["entry/data/data"] = frames(3, pixel_type=pixel_type)
            for name, value in values.items():
                content, unit = value if isinstance(value, tuple) else (value, None)
                file[name] = content
                if unit:
                    file[name].attrs["units"] = unit
        return path

    return written


def test_nexus_with_units(write: Write) -> None:
    path = write(
        {
            f"{DETECTOR}/count_time": (np.array([100.0]), "ms"),
            f"{DETECTOR}/distance": (250.0, "mm"),
            f"{DETECTOR}/x_pixel_size": (np.array([172.0]), "um"),
            f"{DETECTOR}/y_pixel_size": (172e-6, "m"),
            f"{DETECTOR}/beam_center_x": (17.2, "mm"),
            f"{DETECTOR}/beam_center_y": (20.5, "pixel"),
            f"{DETECTOR}/description": np.array([b"Some detector"]),
            f"{DETECTOR}/saturation_value": np.array([4095]),
            "entry/instrument/monochromator/energy": (12.398419843320026, "keV"),
            "entry/start_time": "2024-07-24T10:09:13Z",
        }
    )
    header = read(path, 1).header
    assert header.exposure == pytest.approx(0.1)
    assert header.distance == 250
    assert header.pixel_size_x == pytest.approx(0.172)
    assert header.pixel_size_y == pytest.approx(0.172)
    assert header.beam_center_x == pytest.approx(100)
    assert header.beam_center_y == 20.5
    assert header.wavelength == pytest.approx(1)
    assert (header.detector, header.saturation, header.taken) == ("Some detector", 4095, "2024:07:24 10:09:13")


def test_dectris_without_units(write: Write) -> None:
    path = write(
        {
            f"{DETECTOR}/detector_distance": 0.2,
            f"{DETECTOR}/x_pixel_size": 75e-6,
            f"{DETECTOR}/y_pixel_size": 75e-6,
            f"{DETECTOR}/beam_center_x": 21.5,
            f"{DETECTOR}/beam_center_y": 11.5,
            f"{DETECTOR}/description": "Dectris Eiger2 CdTe 9M",
            f"{DETECTOR}/detectorSpecific/photon_energy": 12398.419843320026,
            f"{DETECTOR}/detectorSpecific/detectorModule_000/countrate_correction_count_cutoff": 5000,
            f"{DETECTOR}/detectorSpecific/data_collection_date": b"2023-01-02T03:04:05.678+01:00",
            f"{DETECTOR}/bit_depth_image": 12,
        }
    )
    header = read(path, 0).header
    assert (header.distance, header.beam_center_x, header.beam_center_y) == (200, 21.5, 11.5)
    assert header.pixel_size_x == pytest.approx(0.075)
    assert header.wavelength == pytest.approx(1)
    assert (header.saturation, header.taken) == (4095, "2023:01:02 03:04:05")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"sample/goniometer/omega": [0.0, 0.5, 1.0], "sample/goniometer/omega_end": [0.4, 0.9, 1.4]}, (0.5, 0.9)),
        ({"sample/goniometer/omega": [0.0, 0.5, 1.0], "sample/goniometer/omega_range_average": 0.5}, (0.5, 1.0)),
        ({"sample/goniometer/omega_start": 10.0, "sample/goniometer/omega_increment": 0.2}, (10.2, 10.4)),
        ({"sample/transformations/omega": [7.0]}, (7.0, 7.0)),
    ],
)
def test_rotation_of_a_frame(write: Write, values: dict[str, Any], expected: tuple[float, float]) -> None:
    (rotation,) = read(write({f"entry/{name}": value for name, value in values.items()}), 1).header.rotations
    assert rotation.circle == "omega"
    assert (rotation.start, rotation.end) == pytest.approx(expected)


def test_values_that_lie_are_not_set(write: Write) -> None:
    path = write(
        {
            f"{DETECTOR}/count_time": "soon",
            f"{DETECTOR}/distance": np.array([np.nan]),
            f"{DETECTOR}/x_pixel_size": np.zeros((2, 2)),
            f"{DETECTOR}/beam_center_x": 0.0,
            f"{DETECTOR}/beam_center_y": 0.0,
            f"{DETECTOR}/saturation_value": -1,
            f"{DETECTOR}/description/nested": 1,
            "entry/instrument/beam/incident_wavelength": (1.0, "furlong"),
            "entry/start_time": 12,
            "entry/sample/goniometer/omega": h5py.Empty("f8"),
        }
    )
    assert read(path, 0).header == NO_HEADER


@pytest.mark.parametrize("place", [f"{DETECTOR}/pixel_mask", f"{DETECTOR}/detectorSpecific/pixel_mask"])
def test_any_bit_of_the_pixel_mask_masks(write: Write, place: str) -> None:
    mask = np.zeros((32, 48), "u4")
    mask[3, 4], mask[5, 6] = 1, 2**31
    found = read(write({place: mask}), 1)
    assert found.own_mask is not None
    np.testing.assert_array_equal(found.own_mask.of(found.image), mask > 0)
    assert found.own_mask.always


def test_mask_of_another_shape_is_refused(write: Write) -> None:
    with pytest.raises(UnsupportedImageError, match="3 x 3 pixels"):
        read(write({f"{DETECTOR}/pixel_mask": np.zeros((3, 3), "u4")}), 1)


def test_mask_that_is_a_link_to_a_missing_file_is_waited_for(write: Write) -> None:
    path = write({f"{DETECTOR}/pixel_mask": h5py.ExternalLink("meta.h5", "/mask")})
    state = check(path, 1)
    assert (state.state, "meta.h5" in state.problem) == ("incomplete", True)
    with pytest.raises(IncompleteFileError, match=r"meta\.h5"):
        read(path, 1)


def test_highest_value_beside_a_dectris_mask_is_overexposed(write: Write) -> None:
    values = {f"{DETECTOR}/pixel_mask": np.zeros((32, 48), "u4"), f"{DETECTOR}/description": "EIGER 500K"}
    found = read(write(values, "uint32"), 0)
    assert found.own_mask is not None
    assert found.own_mask.codes == (2**32 - 2,)
    assert found.header.saturation == 2**32 - 1


def test_lost_frames_are_noted(write: Write) -> None:
    path = write({"entry/instrument/NDAttributes/NDArrayUniqueId": np.array([5, 6, 9], "i4")})
    assert [read(path, index).note for index in range(3)] == [
        "",
        "",
        "NDArrayUniqueId is 9 after 6: frames were lost before this one",
    ]


def test_masks_of_an_eiger_file_are_equal_only_for_the_same_file(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for path in (MADE / "01_eiger_missing").iterdir():
            (tmp_path / name / path.name).write_bytes(path.read_bytes())
    one, same, other = (read(tmp_path / name / "run_master.h5", 0).own_mask for name in "aab")
    assert one == same
    assert one != other


def test_image_numbers_that_lie_end_in_an_answer(tmp_path: Path) -> None:
    for number, low in enumerate([10**30, 5, -3], 1):
        with h5py.File(tmp_path / f"d{number}.h5", "w") as file:
            file["data"] = frames(2)
            file["data"].attrs["image_nr_low"] = str(low) if abs(low) > 2**60 else low
    with h5py.File(tmp_path / "master.h5", "w") as file:
        for number in range(1, 4):
            file[f"entry/data/data_{number:06d}"] = h5py.ExternalLink(f"d{number}.h5", "data")
    assert check(tmp_path / "master.h5").frames == 8
    assert [check(tmp_path / "master.h5", index).state for index in (1, 3, 5, 7)] == [
        "complete", "incomplete", "complete", "complete",
    ]  # fmt: skip
