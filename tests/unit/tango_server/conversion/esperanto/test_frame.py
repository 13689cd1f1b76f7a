"""Whole conversions to ESPERANTO: pixels by fabio, header by the rules of the recipe, and what is refused."""

from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any, get_args

import fabio
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from tango_server.commands.inspect import inspect
from tango_server.conversion import convert_file
from tango_server.conversion.errors import (
    ConversionError,
    ExperimentMissingError,
    ExperimentUnfitError,
    OutputExistsError,
    OutsideRootsError,
    UnsupportedImageError,
)
from tango_server.conversion.esperanto.reading import read_esperanto, read_header
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import Roots
from tango_server.conversion.inspection import inspect_file
from tango_server.conversion.placeholder import make_placeholder
from tango_server.conversion.records import is_placeholder_of, record_of
from tango_server.recipe import Flip, Recipe, Rotation
from tango_server.recipe.esperanto import Encoding
from tests.unit.reference import convert, oriented

SHAPES = [(256, 256), (250, 301), (13, 31)]
HOW = list(product(get_args(Rotation), get_args(Flip)))
GEOMETRY: dict[str, Any] = {
    "wavelength": 0.29,
    "distance": 300.0,
    "pixel_size": 0.2,
    "beam_center": (7.25, 3.5),
    "exposure": 0.5,
}


def recipe(esperanto: dict[str, Any] | None = None, **changes: Any) -> Recipe:
    return Recipe.preset("esperanto", esperanto={"omega": 1.5, **GEOMETRY, **(esperanto or {})}, **changes)


def turned(esperanto: dict[str, Any], rotation: Rotation, flip: Flip) -> Recipe:
    axis = "left" if rotation in {90, 270} else "down"  # the omega axis stays upright in the ESPERANTO frame
    return recipe({"axis": axis, **esperanto}, rotation=rotation, flip=flip)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def frame(folder: Path, image: np.ndarray[Any, Any], name: str = "pat-00017.tif") -> Path:
    path = folder / name
    tifffile.imwrite(path, image)
    return path


def extreme(shape: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Return an image that has everything: noise, NaN, infinities and values beyond int32."""
    rng = np.random.default_rng(5)
    image = rng.normal(50, 20, shape).astype(np.float32)
    image[0, :6] = [np.nan, np.inf, -np.inf, 3e9, -3e9, -0.75]
    image[-1, -1] = 2.0**31 - 128
    return image


def in_a_square(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return an image in the middle of the square that CrysAlis takes."""
    side = max(256, -(-max(image.shape) // 4) * 4)
    padding = tuple(((side - length) // 2, side - length - (side - length) // 2) for length in image.shape)
    return np.pad(image, padding, constant_values=-1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fabio_reads_the_exact_pixels(raw: Path, shape: tuple[int, int]) -> None:
    source, exact = frame(raw, extreme(shape)), convert(extreme(shape), "int32", invalid_value=-1)[0]
    for number, (rotation, flip) in enumerate(HOW, start=SHAPES.index(shape)):  # each turn with each encoding
        encoding = get_args(Encoding)[number % 2]
        case = f"{rotation}, {flip}, {encoding}"
        report = convert_file(source, turned({"encoding": encoding}, rotation, flip))
        assert report.output is not None, case
        whole = in_a_square(oriented(exact, rotation, flip))
        np.testing.assert_array_equal(fabio.open(report.output).data, whole, err_msg=case)
        np.testing.assert_array_equal(read_esperanto(report.output)[1], whole, err_msg=case)
        assert report.shape == whole.shape, case
        assert report.pixel_type == "int32", case
        assert (report.pixels.nan, report.pixels.saturated_high, report.pixels.saturated_low) == (1, 2, 2), case


@pytest.mark.parametrize("shape", [(256, 256), (250, 301), (300, 301)], ids=str)
def test_the_direct_beam_goes_with_the_pixel_that_it_hits(raw: Path, shape: tuple[int, int]) -> None:
    image = np.zeros(shape, np.float32)
    image[37, 101] = 1000
    source = frame(raw, image)
    for rotation, flip in HOW:
        made = turned({"beam_center": (101, 37), "encoding": "4BYTE_LONG"}, rotation, flip)
        found = fabio.open(str(convert_file(source, made).output))
        whole = in_a_square(oriented(image, rotation, flip))
        row, column = np.unravel_index(whole.argmax(), whole.shape)
        assert found.data[row, column] == 1000, (rotation, flip)
        assert read_header(str(found.filename)).origin == (column, row), (rotation, flip)
        assert (found.header["dxorigininpix"], found.header["dyorigininpix"]) == (column, row), (rotation, flip)


def test_every_quantity_is_in_the_header(raw: Path) -> None:
    wanted = {
        "omega": {"start": "om_start", "end": "om_end"},
        "phi": {"center": "phi", "width": 0.5, "sign": -1, "offset": 90},
        "theta": 2.5,
        "monitor": "ion_chamber",
        "alpha": 49.5,
        "beta": 0.25,
    }
    fields = {"om_start": 10.0, "om_end": 10.5, "phi": 30.0, "ion_chamber": 4711}
    source = frame(raw, np.zeros((256, 256), np.float32))
    output = str(convert_file(source, recipe(wanted), fields=fields).output)
    found = fabio.open(output).header
    assert [found[f"d{name}_s"] for name in ("om", "th", "ka", "ph")] == [10.0, 2.5, 0.0, 60.25]
    assert [found[f"d{name}_e"] for name in ("om", "th", "ka", "ph")] == [10.5, 2.5, 0.0, 59.75]
    assert (found["dalphaindeg"], found["dbetaindeg"], found["ddistanceinmm"]) == (49.5, 0.25, 300.0)
    assert (found["drealpixelsizex"], found["drealpixelsizey"]) == (0.2, 0.2)
    assert (found["dxorigininpix"], found["dyorigininpix"]) == (255 - 7.25, 255 - 3.5)
    assert [found[name] for name in ("dalpha1", "dalpha2", "dalpha12", "dbeta1")] == [0.29] * 4
    assert (found["dexposuretimeinsec"], found["lmon1"]) == (0.5, 4711)
    assert found["orientation-type"] == "SYNCHROTRON"
    assert datetime.fromisoformat(found["timestampstring"]).timestamp() == int(source.stat().st_mtime)


def test_masked_pixels_are_marked_and_masks_that_do_not_fit_refused(raw: Path, tmp_path: Path) -> None:
    image = extreme((250, 301))
    mask = np.zeros((250, 301), np.uint8)
    mask[10:20, 30:50] = 1
    path = frame(raw, mask, "mask.tif")
    source = frame(raw, image)
    report = convert_file(source, recipe({"mask": str(path), "encoding": "4BYTE_LONG"}))
    marked = convert(image, "int32", invalid_value=-1)[0]
    marked[mask != 0] = -1
    inner = fabio.open(report.output).data[27:277, 1:302]
    np.testing.assert_array_equal(inner, np.rot90(marked, 2))
    written = Path(str(report.output))
    before = written.read_bytes()
    other = frame(raw, np.zeros((10, 10), np.uint8), "other.tif")
    with pytest.raises(ExperimentUnfitError, match=r"mask: .* has 10 x 10 pixels, the raw frame 250 x 301"):
        convert_file(source, recipe({"mask": str(other)}))
    outside = frame(tmp_path, mask, "mask.tif")
    with pytest.raises(OutsideRootsError, match="mask"):
        convert_file(source, recipe({"mask": str(outside)}), roots=Roots.of([raw]))
    assert written.read_bytes() == before
    assert list((tmp_path / "processed").rglob("*.esperanto")) == [written]


def test_sidecar_supplies_what_recipe_and_metadata_lack(raw: Path) -> None:
    source = frame(raw, extreme((256, 256)))
    bare = Recipe.preset("esperanto", esperanto={"omega": 0})
    with pytest.raises(ExperimentMissingError):
        convert_file(source, bare)
    source.with_name("pat-00017.tif.metadata").write_text(
        "[metadata]\nexposureTime=0.25\nsummedExposures=4\n[centerfinder]\ncenterX=100.5\ncenterY=99\n"
        "detectorXPixelSize=200\ndetectorYPixelSize=200\ndetectorDistance=351.5\nenergy=42700\n"
    )
    header = read_header(str(convert_file(source, bare).output))
    assert header.wavelength == pytest.approx(0.290361, abs=1e-6)
    assert (header.distance, header.pixel_size, header.exposure) == (351.5, 0.2, 1.0)
    assert header.origin == (255 - 100.5, 255 - 99)


BAD: list[tuple[dict[str, Any], type[ConversionError], str]] = [
    ({"omega": "om"}, ExperimentMissingError, "omega.center"),
    ({"wavelength": 0.29, "energy": "en"}, ExperimentUnfitError, "wavelength"),
    ({"distance": "far"}, ExperimentUnfitError, "distance"),
    ({"pixel_size": None}, ExperimentUnfitError, "pixel_size"),
    ({"exposure": "long"}, ExperimentUnfitError, "exposure"),
]


@pytest.mark.parametrize(("wanted", "error", "name"), BAD)
def test_bad_input_costs_nothing_and_names_the_field(
    raw: Path, wanted: dict[str, Any], error: type[ConversionError], name: str
) -> None:
    source = frame(raw, extreme((256, 256)))
    fields = {"en": 50.0, "far": "away", "x_pixel_size": 0.2, "y_pixel_size": 0.3, "long": float("nan")}
    with pytest.raises(error, match=name):
        convert_file(source, recipe(wanted), fields=fields)
    assert not [path for path in raw.parent.rglob("*") if path.is_file() and path != source]


def test_frames_that_crysalis_does_not_take_are_refused(raw: Path) -> None:
    large = frame(raw, np.zeros((4097, 8), np.uint8))
    with pytest.raises(UnsupportedImageError, match=r"4097 x 8 pixels .*4096 x 4096"):
        convert_file(large, recipe())
    pages = frame(raw, np.zeros((2, 256, 256), np.uint8), "pages.tif")
    with pytest.raises(UnsupportedImageError, match="this file has 2"):
        convert_file(pages, recipe())


def test_names_beyond_ascii_are_encoded_in_the_history(raw: Path) -> None:
    name = "M\u00fcller \u03b2-0001.tif"
    report = convert_file(frame(raw, extreme((256, 256)), name), recipe())
    found = record_of(Path(str(report.output)))
    assert found is not None
    assert found.source == name
    assert fabio.open(report.output).header["historystring"].isascii()


def test_only_own_output_is_replaced(raw: Path) -> None:
    source = frame(raw, extreme((256, 256)))
    first = convert_file(source, recipe())
    second = convert_file(source, recipe({"distance": 301.0}))
    assert first.output == second.output
    assert read_header(str(second.output)).distance == 301.0
    other = frame(raw, extreme((256, 256)), "pat_17.tif")
    with pytest.raises(OutputExistsError, match=r"made from another source, pat-00017\.tif"):
        convert_file(other, recipe())
    Path(str(first.output)).write_bytes(b"somebody's notes")
    with pytest.raises(OutputExistsError, match="not written by this program"):
        convert_file(source, recipe())


def test_a_placeholder_has_its_angle_and_gives_way_to_the_frame(raw: Path) -> None:
    source = raw / "pat-00017.tif"
    made = recipe({"omega": {"start": -10, "step": 0.5}})
    fields = {"run": "0123abcd", "seq_num": 3}
    output = raw.parent / "processed" / "pat_0123abcd" / "pat_1_3.esperanto"
    report = make_placeholder(
        FrameLocation(source),
        made,
        (250, 301),
        output=output,
        roots=Roots(),
        reason="it never came",
        token="t",
        fields=fields,
    )
    assert (report.output, report.shape) == (str(output), (304, 304))
    header, pixels = read_esperanto(output)
    assert (header.start.omega, header.end.omega) == (-9.0, -8.5)
    assert set(np.unique(pixels)) == {-1, 0}
    assert is_placeholder_of(FrameLocation(source), output)
    frame(raw, extreme((250, 301)))
    assert convert_file(source, made, fields=fields).output == str(output)
    assert not is_placeholder_of(FrameLocation(source), output)


def test_inspection_shows_the_header(raw: Path) -> None:
    path = Path(str(convert_file(frame(raw, extreme((256, 256))), recipe({"omega": {"start": 1, "end": 2}})).output))
    found = inspect_file(path)
    assert (found["state"], found["kind"]) == ("complete", "ESPERANTO")
    assert found["header"]["end"] == {"omega": 2.0, "theta": 0.0, "kappa": 0.0, "phi": 0.0}
    assert found["provenance"]["source"] == "pat-00017.tif"
    told = CliRunner().invoke(inspect, [str(path)])
    assert told.exit_code == 0
    for words in ("256 x 256 pixels of int32, AGI_BITFIELD", "omega            1 to 2 deg", "300 mm", "0.29 Angstrom"):
        assert words in told.stdout
    path.write_bytes(path.read_bytes()[:-10])
    cut = CliRunner().invoke(inspect, [str(path)])
    assert cut.exit_code == 1
    assert "NOT complete" in cut.stdout
