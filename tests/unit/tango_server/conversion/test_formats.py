"""One frame in every format: the same output, and the detector's own mask held in each recipe."""

from pathlib import Path
from typing import Any

import fabio
import h5py
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tango_server.cli import petif
from tango_server.conversion import convert_file
from tango_server.conversion.combining.group import Member, convert_group
from tango_server.conversion.errors import ConversionError, NotATiffError, UnsupportedImageError
from tango_server.conversion.esperanto.reading import read_header
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.formats import check_file, format_of
from tango_server.conversion.sidecar import read_sidecar
from tango_server.recipe import Flip, Recipe, Rotation
from tests.unit.tango_server.conversion.marccd.test_marccd_header import IMAGE, made

Image = NDArray[Any]
GAP, BAD = -1, -2


def write(folder: Path, name: str) -> tuple[Path, int | None]:
    """Write the image in a format; return the path, and the index of the frame in it."""
    path = folder / name
    if path.suffix == ".tif":
        tifffile.imwrite(path, IMAGE)
    elif path.suffix == ".cbf":
        fabio.cbfimage.CbfImage(data=IMAGE.astype(np.int32)).write(str(path))
    elif path.suffix == ".edf":
        fabio.edfimage.EdfImage(data=IMAGE).write(str(path))
    elif path.suffix == ".mccd":
        path.write_bytes(made())
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset("entry/data/data", data=IMAGE[None], chunks=(1, *IMAGE.shape), compression="gzip")
        return path, 0
    return path, None


@pytest.mark.parametrize("name", ["a.cbf", "a.edf", "a.mccd", "a.h5"])
@pytest.mark.parametrize(
    "recipe", [{"rotation": 90, "flip": "1"}, {"corrections": {"dark": "dark.npy", "repair": "median"}}]
)
def test_all_formats_give_the_output_of_the_tiff(tmp_path: Path, name: str, recipe: dict[str, Any]) -> None:
    np.save(tmp_path / "dark.npy", np.full(IMAGE.shape, 3, np.uint16))
    if "corrections" in recipe:
        recipe = {"corrections": {**recipe["corrections"], "dark": str(tmp_path / "dark.npy")}}
    outputs = []
    for each in ("a.tif", name):
        path, index = write(tmp_path, each)
        parsed = Recipe.parse({"pixel_type": "int32", **recipe, "output": {"folder": str(tmp_path / each[2:])}})
        report = convert_file(path, parsed, frame=index)
        assert (report.outcome, report.frame) == ("converted", index)
        outputs.append(tifffile.imread(str(report.output)))
    np.testing.assert_array_equal(*outputs)


def test_header_of_the_detector_becomes_a_sidecar_and_a_report(tmp_path: Path) -> None:
    path, _ = write(tmp_path, "a.mccd")
    report = convert_file(path, Recipe.parse({"rotation": 90, "output": {"folder": str(tmp_path / "out")}}))
    assert report.sidecar == "carried"
    assert report.metadata["exposure_time"] == 2.5
    sidecar = read_sidecar(Path(str(report.output)))
    assert sidecar is not None
    assert (sidecar.header.exposure, sidecar.header.distance) == (2.5, 150.25)
    assert (sidecar.header.beam_center_x, sidecar.header.beam_center_y) == (1000.0, IMAGE.shape[1] - 1 - 1024.5)
    assert sidecar.header.wavelength == pytest.approx(0.9795)


def test_esperanto_takes_its_header_from_the_detector(tmp_path: Path) -> None:
    path, _ = write(tmp_path, "a.mccd")
    output = tmp_path / "a_1_1.esperanto"
    recipe = Recipe.preset("esperanto", esperanto={"pixel_size": 0.0794})
    assert convert_file(path, recipe, output=output).outcome == "converted"
    header = read_header(output)
    assert (header.exposure, header.distance, header.wavelength) == (2.5, 150.25, pytest.approx(0.9795))
    assert (header.start.omega, header.start.kappa, header.start.phi, header.end.phi) == (10.0, -60.0, 30.0, 30.5)
    assert float(fabio.open(output).header["ddistanceinmm"]) == 150.25


@pytest.mark.parametrize("name", ["a.cbf", "a.edf"])
def test_only_tiffs_are_converted_in_place(tmp_path: Path, name: str) -> None:
    path, _ = write(tmp_path, name)
    before = path.read_bytes()
    with pytest.raises(ConversionError, match="cannot convert in place"):
        convert_file(path, Recipe.parse({"output": {"mode": "in_place"}}))
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["a.h5", "a.edf"])
def test_frame_of_a_stack_counts_its_own_bytes_only(tmp_path: Path, name: str) -> None:
    """The numbers of a run add up the bytes of its frames: the whole file must not count for each of them."""
    path = tmp_path / name
    stack = np.stack([IMAGE] * 5)
    if path.suffix == ".edf":
        file = fabio.edfimage.EdfImage(data=stack[0])
        for image in stack[1:]:
            file.append_frame(data=image)
        file.write(str(path))
    else:
        with h5py.File(path, "w") as opened:
            opened["entry/data/data"] = stack
    parsed = Recipe.parse({"output": {"folder": str(tmp_path / "out")}})
    assert [convert_file(path, parsed, frame=index).bytes_in for index in (0, 4)] == [IMAGE.nbytes] * 2
    paths = [FrameLocation(path, "", index) for index in range(5)]
    combined = Recipe.parse({**parsed.model_dump(mode="json"), "combine": {"of": "run", "method": "sum"}})
    assert convert_group([Member(each, {}) for each in paths], combined).bytes_in == stack.nbytes


def test_an_index_in_a_file_of_one_frame_is_refused(tmp_path: Path) -> None:
    path, _ = write(tmp_path, "a.tif")
    with pytest.raises(UnsupportedImageError, match="one frame"):
        convert_file(path, Recipe.parse({"output": {"folder": str(tmp_path / "out")}}), frame=2)


def test_unknown_files_are_reported_as_no_tiff(tmp_path: Path) -> None:
    path = tmp_path / "a.cbf"
    path.write_bytes(b"something else")
    assert format_of(path).name == "TIFF"
    with pytest.raises(NotATiffError):
        convert_file(path, Recipe.parse({"output": {"folder": str(tmp_path / "out")}}))


@pytest.mark.parametrize(
    ("name", "proof"), [("a.cbf", "CBF"), ("a.edf", "EDF"), ("a.mccd", "MarCCD"), ("a.h5", "chunk")]
)
def test_inspect_says_how_completeness_was_proven(tmp_path: Path, name: str, proof: str) -> None:
    path, _ = write(tmp_path, name)
    assert proof in check_file(FrameLocation(path)).proof
    printed = CliRunner().invoke(petif, ["inspect", str(path)]).stdout
    assert f"{path}: complete" in printed
    assert any("proof" in line and proof in line for line in printed.splitlines())


def pilatus_stack(path: Path, frames: Image) -> None:
    """Write frames as a Pilatus does in HDF5: signed, gaps -1, bad pixels -2."""
    with h5py.File(path, "w") as file:
        file.create_dataset("entry/data/data", data=frames, chunks=(1, *frames.shape[1:]))
        file["entry/instrument/detector/description"] = "PILATUS3 X CdTe 2M"


@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_own_mask_holds_in_every_recipe(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("own")
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    frame = random.integers(0, 1000, (7, 9), np.int32)
    masked = random.random(frame.shape) < 0.3
    masked[0, 0] = False
    frame[masked] = random.choice([GAP, BAD], masked.sum())
    pilatus_stack(folder / "a.h5", frame[None])
    rotation, flip = (
        data.draw(st.sampled_from([0, 90, 180, 270])),
        data.draw(st.sampled_from(["none", "0", "1", "both"])),
    )
    target = data.draw(st.sampled_from([None, "uint16", "int32", "float32"]))
    corrections = data.draw(st.sampled_from([None, {"saturation": 900.0}]))
    recipe = Recipe.parse({
        "rotation": rotation, "flip": flip, "pixel_type": target, "corrections": corrections, "invalid_value": 7,
        "output": {"folder": str(folder / "out")},
    })  # fmt: skip
    report = convert_file(folder / "a.h5", recipe, frame=0)
    output = tifffile.imread(str(report.output))
    kind = np.dtype(target or "int32")
    expected = np.where(masked, np.nan if kind.kind == "f" else 7, frame).astype(kind)
    np.testing.assert_array_equal(output, turned(expected, rotation, flip))
    assert report.pixels.masked == masked.sum()
    assert report.pixels.negative == 0
    if corrections is not None:
        assert report.pixels.overexposed == np.count_nonzero(frame >= 900)


def turned(image: Image, rotation: Rotation, flip: Flip) -> Image:
    image = np.rot90(image, rotation // 90)
    return image if flip == "none" else np.flip(image, None if flip == "both" else int(flip))


@pytest.mark.parametrize("corrections", [None, {"saturation": 900.0}])
def test_negatives_of_a_dectris_cbf_are_masked_only_with_corrections(
    tmp_path: Path, corrections: dict[str, Any] | None
) -> None:
    frame = np.arange(100, dtype=np.int32).reshape(10, 10) - 2
    image = fabio.cbfimage.CbfImage(data=frame)
    image.header["_array_data.header_contents"] = "# Detector: PILATUS 300K\r\n# Count_cutoff 90 counts"
    image.write(str(tmp_path / "a.cbf"))
    recipe = {"pixel_type": "int32", "invalid_value": 7, "corrections": corrections}
    report = convert_file(tmp_path / "a.cbf", Recipe.parse({**recipe, "output": {"folder": str(tmp_path / "out")}}))
    output = tifffile.imread(str(report.output))
    if corrections is None:
        np.testing.assert_array_equal(output, frame)
        assert (report.pixels.masked, report.pixels.overexposed) == (0, np.count_nonzero(frame >= 90))
    else:
        np.testing.assert_array_equal(output, np.where(frame < 0, 7, frame))
        assert (report.pixels.masked, report.pixels.overexposed) == (2, 0)
