"""The files beside the frames of a scan, read back by fabio's own classes."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from fabio.xcaliburimage import SCAN_TYPE, CcdCharacteristiscs, RunDescription
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays

from tango_server.conversion import convert_file
from tango_server.conversion.esperanto.companions import Companions, companions_of, write_companions
from tango_server.conversion.esperanto.reading import read_esperanto
from tango_server.conversion.esperanto.rectangles import rectangles_of
from tango_server.conversion.esperanto.scan import UnevenScanError, headers_in, scan_of
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import ANYWHERE, Roots
from tango_server.recipe import Recipe

GEOMETRY: dict[str, Any] = {
    "wavelength": 0.29,
    "distance": 300.0,
    "pixel_size": 0.2,
    "beam_center": (100.0, 120.0),
    "exposure": 0.5,
}
ALL = {"pat.par", "pat.run", "pat.set", "pat.ccd"}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path.resolve() / "raw"
    folder.mkdir()
    return folder


def recipe(**esperanto: Any) -> Recipe:
    return Recipe.preset("esperanto", esperanto={**GEOMETRY, **esperanto})


def convert(raw: Path, made: Recipe, angles: dict[int, float], shape: tuple[int, int] = (250, 301)) -> Path:
    """Convert a frame for each index and angle; return the folder of the frames."""
    output = ""
    for index, angle in angles.items():
        source = raw / f"pat-{index:05d}.tif"
        tifffile.imwrite(source, np.full(shape, index, np.float32))
        output = str(convert_file(source, made, fields={"angle": angle}).output)
    return Path(output).parent


def companions(raw: Path, made: Recipe, folder: Path) -> Companions:
    index = max(int(path.stem.rpartition("_")[2]) for path in folder.glob("*.esperanto"))
    return companions_of(
        FrameLocation(raw / f"pat-{index:05d}.tif"), folder / f"pat_1_{index}.esperanto", made, ANYWHERE, "token"
    )


@pytest.mark.parametrize(("circle", "kind"), [("omega", SCAN_TYPE.Omega), ("phi", SCAN_TYPE.Phi)])
def test_the_scan_is_described_as_the_headers_have_it(raw: Path, circle: str, kind: SCAN_TYPE) -> None:
    made = recipe(**{"kappa": 0.0, "theta": 2.0, circle: {"center": "angle", "width": 0.5}})
    folder = convert(raw, made, {index: -10 + 0.5 * index for index in range(1, 9)})
    done = companions(raw, made, folder)
    assert (set(done.written), done.notes) == (ALL, ())
    run = RunDescription.read(folder / "pat.run")
    assert (run.cprefix, run.cfolder) == ("pat", str(folder))
    (sweep,) = run.pssweep
    assert sweep.iscantype == kind.value
    assert (sweep.dstart, sweep.dend, sweep.dwidth) == pytest.approx((-9.75, -5.75, 0.5))
    assert (sweep.iunknown3, sweep.dexposure, sweep.dtheta) == (8, 0.5, 2.0)


def test_the_parameters_are_those_of_the_frames(raw: Path) -> None:
    made = recipe(omega={"center": "angle", "width": 0.5}, alpha=49.0, beta=0.5)
    folder = convert(raw, made, {index: 0.5 * index for index in range(1, 4)})
    companions(raw, made, folder)
    text = (folder / "pat.par").read_bytes().decode("latin-1")
    header, _ = read_esperanto(folder / "pat_1_1.esperanto")
    x, y = header.origin
    for line in (
        f"ROTATION DETECTORORIENTATION    0.000000    0.000000    0.00000   300.0 {x} {y}",
        "CRYSTALLOGRAPHY WAVELENGTH 0.29 0.29 0.29",
        "ROTSIMULATOR ALPHAANGLEINDEG       49.0",
        "ROTSIMULATOR BETAANGLEINDEG        0.5",
        "ROTATION SCANWIDTH 0.5",
        "CCD PARAMETERS 1 1 0 0 304 304",
        'FILE CHIP "pat.ccd"',
        f"SETUP PATH : {folder}",
    ):
        assert line in text, line
    assert text.count("\r\n") == text.count("\n") > 100


def test_the_detector_has_mask_and_margin_where_the_frames_have_them(raw: Path) -> None:
    rng = np.random.default_rng(3)
    mask = rng.random((250, 301)) < 0.002
    mask[100:104, :] = True
    mask[30:60, 40:90] = True
    tifffile.imwrite(raw.parent / "mask.tif", mask.astype(np.uint8))
    made = recipe(omega={"center": "angle", "width": 0.5}, mask=str(raw.parent / "mask.tif"))
    folder = convert(raw, made, {index: 0.5 * index for index in range(1, 4)})
    companions(raw, made, folder)
    _, pixels = read_esperanto(folder / "pat_1_2.esperanto")
    expected = pixels == -1
    assert expected.sum() > mask.sum()
    chip = CcdCharacteristiscs.read(folder / "pat.ccd")
    np.testing.assert_array_equal(chip.build_mask(pixels.shape), expected)
    marked = np.zeros_like(expected)
    for line in (folder / "pat.set").read_text().splitlines():
        words = line.split()
        if words[:2] == ["CHIP", "BADRECTANGLE"]:
            left, right, bottom, top = map(int, words[2:])
            marked[bottom : top + 1, left : right + 1] = True
        elif words[:2] == ["CHIP", "BADPOINT"]:
            marked[int(words[3]), int(words[2])] = True
    np.testing.assert_array_equal(marked, expected)


def test_late_frames_lengthen_the_scan_and_nothing_else_is_touched(raw: Path) -> None:
    made = recipe(omega={"center": "angle", "width": 0.5})
    folder = convert(raw, made, {index: 0.5 * index for index in range(1, 4)})
    companions(raw, made, folder)
    (folder / "pat.par").write_text("changed by CrysAlis")
    convert(raw, made, {index: 0.5 * index + 0.01 for index in range(4, 8)})
    assert companions(raw, made, folder) == Companions(("pat.run",), ())
    assert RunDescription.read(folder / "pat.run").pssweep[0].iunknown3 == 7
    assert (folder / "pat.par").read_text() == "changed by CrysAlis"
    assert companions(raw, made, folder) == Companions((), ())
    (folder / "pat.run").write_bytes(b"changed by CrysAlis")
    done = companions(raw, made, folder)
    assert (done.written, "left unchanged" in done.notes[0]) == ((), True)
    assert (folder / "pat.run").read_bytes() == b"changed by CrysAlis"


def test_missing_frames_are_reported_and_keep_their_place(raw: Path) -> None:
    made = recipe(omega={"center": "angle", "width": 0.5})
    folder = convert(raw, made, {index: 0.5 * index for index in (1, 2, 5, 8)})
    done = companions(raw, made, folder)
    assert done.notes == ("4 of 8 frames of pat are missing: 3, 4, 6, 7",)
    (sweep,) = RunDescription.read(folder / "pat.run").pssweep
    assert (sweep.iunknown3, sweep.dwidth) == (8, pytest.approx(0.5))


@pytest.mark.parametrize(
    ("angles", "words"),
    [
        ({1: 0.5}, "at least two frames, not 1"),
        ({1: 0.5, 2: 0.5, 3: 0.5}, "one circle, not none"),
        ({1: 0.5, 2: 1.0, 3: 5.0, 4: 2.0}, "frame 3 has omega = 5"),
    ],
)
def test_frames_that_are_no_even_scan_have_no_run(raw: Path, angles: dict[int, float], words: str) -> None:
    made = recipe(omega="angle")
    folder = convert(raw, made, angles)
    done = companions(raw, made, folder)
    assert set(done.written) == ALL - {"pat.run"}
    assert words in done.notes[0]
    assert "esperanto createrunlist" in done.notes[0]
    with pytest.raises(UnevenScanError):
        scan_of(headers_in(folder, "pat"))


def test_other_files_in_the_folder_are_passed_over(raw: Path) -> None:
    made = recipe(omega={"center": "angle", "width": 0.5})
    folder = convert(raw, made, {index: 0.5 * index for index in range(1, 4)})
    shutil.copy(folder / "pat_1_1.esperanto", folder / "other_1_4.esperanto")
    (folder / "pat_1_4.esperanto").write_bytes(b"half a frame")
    (folder / "notes.txt").write_text("hello")
    assert sorted(headers_in(folder, "pat")) == [1, 2, 3]


def test_nothing_is_written_beyond_the_roots(raw: Path, tmp_path: Path) -> None:
    made = recipe(omega={"center": "angle", "width": 0.5})
    folder = convert(raw, made, {index: 0.5 * index for index in range(1, 4)})
    mask = np.zeros((304, 304), np.bool_)
    roots = Roots.of([raw], [tmp_path.resolve() / "elsewhere"])
    assert write_companions(folder, "pat", mask=mask, roots=roots, token="token").written == ()
    assert {path.suffix for path in folder.iterdir()} == {".esperanto"}


@given(mask=arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_rectangles_cover_just_the_marked_pixels_and_each_once(mask: np.ndarray[Any, Any]) -> None:
    count = np.zeros(mask.shape, int)
    for left, right, bottom, top in rectangles_of(mask):
        count[bottom : top + 1, left : right + 1] += 1
    np.testing.assert_array_equal(count, mask.astype(int))


def test_a_mask_of_many_areas_leaves_the_ccd_out(raw: Path) -> None:
    made = recipe(omega={"center": "angle", "width": 0.5})
    folder = convert(raw, made, {index: 0.5 * index for index in range(1, 4)}, (512, 512))
    mask = np.indices((512, 512)).sum(axis=0) % 2 == 0
    done = write_companions(folder, "pat", mask=mask, roots=ANYWHERE, token="token")
    assert set(done.written) == ALL - {"pat.ccd"}
    assert "the mask has 131072 areas" in done.notes[0]
