"""What corrections count, mark, repair, refuse and report."""

import hashlib
import shutil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tifffile

from tango_server.conversion import convert_file
from tango_server.conversion.errors import (
    AlreadyCorrectedError,
    DarkMissingError,
    MasterMissingError,
    MasterUnfitError,
    MasterUnreadableError,
)
from tango_server.conversion.esperanto.reading import read_esperanto
from tango_server.conversion.records import record_of
from tango_server.conversion.sidecar import sidecar_path
from tango_server.messages import FrameReport
from tango_server.recipe import Recipe
from tests.unit.corrected import corrected
from tests.unit.exposures import write_exposure

Image = np.ndarray[Any, Any]
SHAPE = (8, 10)


@pytest.fixture
def flat_file(tmp_path: Path) -> Path:
    return saved(tmp_path / "flat.npy", np.full(SHAPE, 0.5, np.float32))


def saved(path: Path, image: Image) -> Path:
    np.save(path, image)
    return path


def frame(folder: Path, image: Image, name: str = "frame.tif") -> Path:
    path = folder / name
    tifffile.imwrite(path, image, photometric="minisblack")
    return path


def counts(value: int = 100, kind: str = "uint16") -> Image:
    return np.full(SHAPE, value, kind)


def convert(path: Path, corrections: dict[str, Any], **recipe: Any) -> tuple[Image, FrameReport]:
    given = {name: str(value) if isinstance(value, Path) else value for name, value in corrections.items()}
    output = {"folder": str(path.parent / "out")}
    report = convert_file(path, Recipe.parse({"output": output, **recipe, "corrections": given}))
    assert report.output
    return tifffile.imread(report.output), report


def test_negatives_stay_and_are_truncated_toward_zero(tmp_path: Path) -> None:
    dark = saved(tmp_path / "dark.npy", np.full(SHAPE, 100.5))
    image, report = convert(frame(tmp_path, counts()), {"dark": dark}, pixel_type="int32")
    assert (image == 0).all()
    image, report = convert(frame(tmp_path, counts(98)), {"dark": dark}, pixel_type="int32")
    assert (image == -2).all()
    assert report.pixels.negative == 0


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("uint8", "float32"),
        ("uint16", "float32"),
        ("float32", "float32"),
        ("uint32", "float64"),
        ("float64", "float64"),
    ],
)
def test_pixel_type_of_a_dark_or_flat(tmp_path: Path, flat_file: Path, source: str, expected: str) -> None:
    image, report = convert(frame(tmp_path, counts(kind=source)), {"flat": flat_file})
    assert image.dtype == report.pixel_type == expected
    assert (image == 200).all()


def test_a_mask_alone_never_leaves_the_integers(tmp_path: Path) -> None:
    raw = counts(kind="int32")
    raw[0, 0] = 2**31 - 3  # no float32
    mask = np.zeros(SHAPE)
    mask[2, 3] = -0.5
    image, report = convert(
        frame(tmp_path, raw), {"mask": saved(tmp_path / "mask.npy", mask), "saturation": 1000}, invalid_value=-7
    )
    expected = raw.copy()
    expected[2, 3] = -7
    np.testing.assert_array_equal(image, expected)
    assert (report.pixels.masked, report.pixels.overexposed) == (1, 1)


def test_overexposed_pixels_are_counted_before_the_dark_and_without_masked_ones(tmp_path: Path) -> None:
    raw = counts()
    raw[0, :4] = 60_000, 59_999, 65_535, 60_001
    mask = np.zeros(SHAPE, np.uint8)
    mask[0, 2] = 1
    masters = {"dark": saved(tmp_path / "dark.npy", counts(500)), "mask": saved(tmp_path / "mask.npy", mask)}
    _, report = convert(frame(tmp_path, raw), {**masters, "saturation": 60_000})
    assert report.pixels.overexposed == 2
    _, report = convert(frame(tmp_path, raw), masters)
    assert report.pixels.overexposed is None


def test_nan_is_masked_with_masters_and_counted_as_nan_with_saturation_alone(tmp_path: Path, flat_file: Path) -> None:
    raw = counts(kind="float32")
    raw[0, :3] = np.nan, np.inf, -np.inf
    image, report = convert(frame(tmp_path, raw), {"saturation": 50}, pixel_type="int32", invalid_value=-1)
    assert (report.pixels.nan, report.pixels.masked) == (1, 0)
    assert report.pixels.overexposed == raw.size - 3
    assert image[0, :3].tolist() == [-1, 2**31 - 1, -(2**31)]
    image, report = convert(frame(tmp_path, raw), {"flat": flat_file}, pixel_type="int32", invalid_value=-1)
    assert (report.pixels.nan, report.pixels.masked, report.pixels.saturated_high) == (0, 3, 0)
    assert image[0, :3].tolist() == [-1, -1, -1]
    assert (report.pixels.minimum, report.pixels.maximum) == (200, 200)


def test_repair_takes_the_median_of_five_by_five(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    raw = random.integers(0, 1000, (20, 20), np.uint16)
    dark = random.random((20, 20)).astype(np.float32)
    mask = np.zeros((20, 20), np.uint8)
    mask[5, 5] = mask[0, 0] = 1  # a hot pixel, one in the corner
    mask[10:16, 10:16] = 1  # too large a gap, but for its corners
    given = {"dark": saved(tmp_path / "dark.npy", dark), "mask": saved(tmp_path / "mask.npy", mask)}
    image, report = convert(frame(tmp_path, raw), {**given, "repair": "median"}, rotation=90)
    reference = corrected(raw, dark, None, mask)
    expected = np.where(reference.masked, np.nan, reference.values)
    for row, column in zip(*np.nonzero(mask), strict=True):
        beside = np.s_[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
        free = reference.values[beside][mask[beside] == 0]
        if 2 * free.size >= mask[beside].size:
            expected[row, column] = np.median(free)
    np.testing.assert_allclose(image, np.rot90(expected), rtol=1e-6)
    assert 0 < report.pixels.masked == np.isnan(expected).sum() < mask.sum() - 2


def test_masters_are_on_the_record(tmp_path: Path, flat_file: Path) -> None:
    dark = frame(tmp_path, counts(10), "dark.tif")
    _, report = convert(frame(tmp_path, counts()), {"dark": dark, "flat": flat_file, "saturation": 100})
    assert [(master.kind, master.path) for master in report.masters] == [("dark", str(dark)), ("flat", str(flat_file))]
    assert report.masters[0].sha256 == hashlib.sha256(dark.read_bytes()).hexdigest()
    made = record_of(Path(str(report.output)))
    assert made is not None
    assert [(each.kind, each.sha256) for each in made.masters] == [(each.kind, each.sha256) for each in report.masters]
    assert (made.masked, made.overexposed) == (0, 80)


@pytest.mark.parametrize("compression", ["none", "deflate"])
def test_counts_in_the_tags_of_each_layout(tmp_path: Path, compression: str) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[:2] = 1
    raw = np.stack([counts(), counts(200), counts(300)])
    _, report = convert(
        frame(tmp_path, raw), {"mask": saved(tmp_path / "mask.npy", mask), "saturation": 250}, compression=compression
    )
    made = record_of(Path(str(report.output)))
    assert made is not None
    assert report.pages == 3
    assert (made.masked, made.overexposed) == (report.pixels.masked, report.pixels.overexposed) == (60, 60)


class TestEsperanto:
    RECIPE: ClassVar = {
        "wavelength": 0.29, "distance": 200.0, "pixel_size": 0.2, "beam_center": [4, 4], "exposure": 1.0,
        "omega": {"start": 0.0, "end": 1.0},
    }  # fmt: skip

    def converted(self, path: Path, corrections: dict[str, Any]) -> tuple[Image, FrameReport]:
        given = {name: str(value) for name, value in corrections.items()}
        recipe = {"preset": "esperanto", "rotation": 0, "esperanto": self.RECIPE, "corrections": given}
        report = convert_file(path, Recipe.parse({**recipe, "output": {"folder": str(path.parent / "out")}}))
        _, pixels = read_esperanto(Path(str(report.output)))
        above = (256 - SHAPE[0]) // 2
        left = (256 - SHAPE[1]) // 2
        return pixels[above : above + SHAPE[0], left : left + SHAPE[1]], report

    def test_values_that_would_be_taken_for_masked_become_0(self, tmp_path: Path) -> None:
        raw = counts(10, "float32")
        raw[0, :5] = 9, 8.5, 8, 7, np.nan
        mask = np.zeros(SHAPE, np.uint8)
        mask[3, 3] = 1
        dark = saved(tmp_path / "dark.npy", counts(10))
        image, report = self.converted(frame(tmp_path, raw), {"dark": dark, "mask": saved(tmp_path / "m.npy", mask)})
        assert image[0, :5].tolist() == [0, 0, -2, -3, -1]
        assert image[3, 3] == -1
        assert (report.pixels.negative, report.pixels.masked) == (2, 2)

    def test_masters_are_in_the_history(self, tmp_path: Path) -> None:
        dark = saved(tmp_path / "dark.npy", counts(10))
        _, report = self.converted(frame(tmp_path, counts()), {"dark": dark, "saturation": 100})
        made = record_of(Path(str(report.output)))
        assert made is not None
        (master,) = made.masters
        assert (master.kind, made.masked, made.overexposed) == ("dark", 0, 80)
        assert report.masters[0].sha256.startswith(master.sha256)


def frame_beside_sidecar(folder: Path, output: str) -> Path:
    """Another program's copy of an output, with its sidecar but without our record."""
    copy = frame(folder, tifffile.imread(output), "copy.tif")
    shutil.copy(sidecar_path(Path(output)), sidecar_path(copy))
    return copy


class TestExposures:
    """The dark of a QXRD frame must have its exposure; the number of summed exposures scales it."""

    def test_a_dark_is_scaled_by_summed_exposures(self, tmp_path: Path) -> None:
        path = write_exposure(tmp_path / "frame.tif", counts(1000, "uint32"), time=1.0, summed=10)
        dark = write_exposure(tmp_path / "dark.tif", counts(300, "uint32"), time=1.0, summed=4)
        image, report = convert(path, {"dark": dark, "saturation": 100})
        assert (image == 1000 - 300 * 10 / 4).all()
        assert report.masters[0].scale == 2.5
        assert report.pixels.overexposed == image.size  # 10 exposures of 100 counts

    def test_the_sidecar_says_that_the_dark_is_off(self, tmp_path: Path) -> None:
        path, dark = write_exposure(tmp_path / "frame.tif", counts()), saved(tmp_path / "dark.npy", counts(1))
        _, report = convert(path, {"dark": dark})
        assert report.sidecar == "carried"
        with pytest.raises(AlreadyCorrectedError):  # by another program, too
            convert(frame_beside_sidecar(tmp_path, str(report.output)), {"dark": dark})
        _, report = convert(path, {"saturation": 1000})
        assert sidecar_path(path).read_bytes() == sidecar_path(Path(str(report.output))).read_bytes()

    def test_another_exposure_is_refused(self, tmp_path: Path) -> None:
        path = write_exposure(tmp_path / "frame.tif", counts(1000, "uint32"), time=1.0, summed=10)
        dark = write_exposure(tmp_path / "dark.tif", counts(300), time=10.0, summed=1)
        with pytest.raises(MasterUnfitError, match="10 s, not 1 s") as raised:
            convert(path, {"dark": dark})
        assert str(dark) in str(raised.value)
        assert str(path) in str(raised.value)

    def test_another_gain_is_refused(self, tmp_path: Path) -> None:
        path = write_exposure(tmp_path / "frame.tif", counts(1000), time=1.0, gain=2)
        dark = write_exposure(tmp_path / "dark.tif", counts(300), time=1.005, gain=0)
        with pytest.raises(MasterUnfitError, match="gain"):
            convert(path, {"dark": dark})

    def test_an_unknown_exposure_is_noted(self, tmp_path: Path) -> None:
        path = write_exposure(tmp_path / "frame.tif", counts(1000), time=1.0, summed=2)
        dark = frame(tmp_path, counts(300), "dark.tif")
        _, report = convert(path, {"dark": dark})
        assert "exposure time" in report.reason
        assert str(dark) in report.reason

    def test_a_dark_that_is_off_already_is_refused_unless_forced(self, tmp_path: Path) -> None:
        path = write_exposure(tmp_path / "frame.tif", counts(1000, "float32"), data_type="Subtracted Data")
        dark = write_exposure(tmp_path / "dark.tif", counts(300))
        with pytest.raises(AlreadyCorrectedError, match="already subtracted"):
            convert(path, {"dark": dark})
        image, report = convert(path, {"dark": dark, "force": True, "saturation": 900})
        assert (image == 700).all()
        assert report.pixels.overexposed is None

    def test_floats_of_qxrd_without_a_sidecar(self, tmp_path: Path) -> None:
        path = write_exposure(tmp_path / "frame.tif", counts(1000, "float32"), data_type=None)
        with pytest.raises(AlreadyCorrectedError, match="sidecar"):
            convert(path, {"dark": saved(tmp_path / "dark.npy", counts(1))})
        _, report = convert(path, {"saturation": 10})
        assert report.pixels.overexposed is None
        assert "not counted" in report.reason

    def test_our_own_corrected_frame_is_refused(self, tmp_path: Path) -> None:
        dark = saved(tmp_path / "dark.npy", counts(1))
        _, report = convert(frame(tmp_path, counts()), {"dark": dark})
        again = {"folder": str(tmp_path / "again"), "force": True}
        with pytest.raises(AlreadyCorrectedError):
            convert(Path(str(report.output)), {"dark": dark}, output=again)


class TestGeometry:
    """Where the masters' rows and columns are those of the frame."""

    ROWS = np.arange(80, dtype=np.uint16).reshape(SHAPE)

    @pytest.mark.parametrize(("rotation", "flip"), [(0, "0"), (90, "none"), (270, "1")])
    def test_masters_as_the_frame_the_output_and_dioptas(self, tmp_path: Path, rotation: int, flip: str) -> None:
        recipe = {"rotation": rotation, "flip": flip}
        path = frame(tmp_path, self.ROWS)
        turned = np.rot90(self.ROWS, rotation // 90)
        turned = np.flip(turned, int(flip)) if flip != "none" else turned
        for masters_in, dark in (("raw", self.ROWS), ("dioptas", self.ROWS[::-1]), ("output", turned)):
            image, _ = convert(
                path, {"dark": saved(tmp_path / f"{masters_in}.npy", dark), "masters_in": masters_in}, **recipe
            )
            assert (image == 0).all()

    def test_a_master_that_we_turned_is_turned_back(self, tmp_path: Path) -> None:
        dark, light = frame(tmp_path, self.ROWS, "dark.tif"), frame(tmp_path, self.ROWS)
        turned = convert_file(dark, Recipe.preset("xdi", rotation=90, flip="1", output={"folder": str(tmp_path / "d")}))
        image, _ = convert(light, {"dark": turned.output}, rotation=270)
        assert (image == 0).all()

    def test_the_mask_of_dioptas_in_both_of_its_orientations(self, tmp_path: Path) -> None:
        """Dioptas writes a TIFF named `.mask`, compressed, upside down unless its flip option is set."""
        mask = np.zeros(SHAPE, np.uint8)
        mask[1, 2] = 1
        for masters_in, stored in (("raw", mask), ("dioptas", np.flipud(mask))):
            path = tmp_path / f"{masters_in}.mask"
            tifffile.imwrite(path, stored, compression="zlib", photometric="minisblack")
            image, _ = convert(
                frame(tmp_path, counts()),
                {"mask": path, "masters_in": masters_in},
                pixel_type="int32",
                invalid_value=-1,
            )
            assert np.argwhere(image == -1).tolist() == [[1, 2]]


class TestRefused:
    """Bad masters: an error of a kind that names both files; no output."""

    @pytest.mark.parametrize(
        ("kind", "image", "said"),
        [
            ("dark", np.zeros((4, 4)), "4 x 4"),
            ("dark", np.zeros((1, 1)), "1 x 1"),
            ("flat", np.zeros(SHAPE), "0 or negative"),
            ("flat", np.full(SHAPE, 100.0), "median"),
            ("flat", np.full(SHAPE, np.nan), "masked"),
            ("dark", np.full(SHAPE, np.nan), "masked"),
            ("dark", np.full(SHAPE, 64_000, np.uint16), "near saturation"),
            ("mask", np.ones(SHAPE), "masked"),
            ("mask", np.ones((2, *SHAPE)), "one image"),
        ],
    )
    def test_unfit_masters(self, tmp_path: Path, kind: str, image: Image, said: str) -> None:
        path, master = frame(tmp_path, counts()), saved(tmp_path / "master.npy", image)
        with pytest.raises(MasterUnfitError, match=said) as raised:
            convert(path, {kind: master})
        assert str(path) in str(raised.value)
        assert str(master) in str(raised.value)
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())

    def test_a_flat_with_zeros_below_the_mask_is_taken(self, tmp_path: Path, flat_file: Path) -> None:
        image = np.load(flat_file)
        image[3] = 0
        mask = (image == 0).astype(np.uint8)
        given = {"flat": saved(flat_file, image), "mask": saved(tmp_path / "mask.npy", mask)}
        image, _ = convert(frame(tmp_path, counts()), given)
        assert np.isnan(image[3]).all()
        assert (np.delete(image, 3, 0) == 200).all()

    def test_a_normalised_flat(self, tmp_path: Path) -> None:
        flat = np.full(SHAPE, 1000.0)
        flat[0, 0] = 3000
        given = {"flat": saved(tmp_path / "flat.npy", flat), "flat_normalize": "mean"}
        image, report = convert(frame(tmp_path, counts()), given, pixel_type="float64")
        np.testing.assert_allclose(image, 100 / (flat / flat.mean()))
        assert report.masters[0].scale == pytest.approx(1 / flat.mean())

    def test_files_that_are_no_masters(self, tmp_path: Path) -> None:
        path = frame(tmp_path, counts())
        with pytest.raises(MasterMissingError):
            convert(path, {"flat": tmp_path / "none.tif"})
        (tmp_path / "text.tif").write_text("no image")
        np.save(tmp_path / "words.npy", np.array([["a"]]))
        whole = frame(tmp_path, counts(), "whole.tif").read_bytes()
        (tmp_path / "cut.tif").write_bytes(whole[:-20])
        for name in ("text.tif", "words.npy", "cut.tif"):
            with pytest.raises(MasterUnreadableError, match=name):
                convert(path, {"dark": tmp_path / name})

    def test_no_dark_of_the_run(self, tmp_path: Path) -> None:
        path = frame(tmp_path, counts())
        with pytest.raises(DarkMissingError):
            convert(path, {"dark": "run"})
        image, report = convert(path, {"dark": "run", "on_missing_dark": "convert"})
        assert image.dtype == np.float32
        assert "no dark" in report.reason

    def test_most_pixels_masked_is_noted(self, tmp_path: Path) -> None:
        mask = np.ones(SHAPE, np.uint8)
        mask[0] = 0
        _, report = convert(frame(tmp_path, counts()), {"mask": saved(tmp_path / "mask.npy", mask)})
        assert "70 of 80" in report.reason


def test_several_darks_are_combined(tmp_path: Path) -> None:
    darks = [saved(tmp_path / f"{value}.npy", counts(value)) for value in (100, 100, 130)]
    path = frame(tmp_path, counts(200))
    given = {"dark": [str(dark) for dark in darks]}
    assert (convert(path, given)[0] == 90).all()
    assert (convert(path, {**given, "dark_combine": "median"})[0] == 100).all()
    stack = saved(tmp_path / "stack.npy", np.stack([np.load(dark) for dark in darks]))
    assert (convert(path, {"dark": stack})[0] == 90).all()


def test_a_master_that_changes_is_read_again(tmp_path: Path) -> None:
    path, dark = frame(tmp_path, counts(200)), saved(tmp_path / "dark.npy", counts(100))
    before = convert(path, {"dark": dark})
    saved(dark, counts(150).astype(np.uint32))
    after = convert(path, {"dark": dark})
    assert (before[0] == 100).all()
    assert (after[0] == 50).all()
    assert before[1].masters[0].sha256 != after[1].masters[0].sha256
