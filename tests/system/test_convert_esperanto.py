"""`petif convert --format esperanto`, as one types it."""

import json
import shutil
from datetime import datetime
from functools import partial
from pathlib import Path

import fabio
import numpy as np
import pytest
import tifffile
from fabio.xcaliburimage import RunDescription

from petif_bluesky.sim.qxrd_sidecar import Sidecar, write_sidecar
from tests.system.petif_command import Call

GEOMETRY = ["--wavelength", "0.29", "--distance", "300", "--pixel-size", "0.2", "--beam-center", "30,31.5"]
GEOMETRY += ["--exposure", "0.5"]


@pytest.fixture
def petif(petif: Call) -> Call:
    return partial(petif, "convert", "raw", "--format", "esperanto")


@pytest.fixture
def raw(tmp_path: Path, data: Path) -> Path:
    """Three frames of a scan; the fourth of five is missing."""
    (tmp_path / "raw").mkdir()
    for number in (12, 13, 15):
        shutil.copy(data / "qxrd_f32_64.tif", tmp_path / "raw" / f"pat-{number:05d}.tif")
    return tmp_path / "raw"


def headers(folder: Path) -> dict[int, tuple[float, float]]:
    found = {}
    for path in folder.glob("*.esperanto"):
        header = fabio.open(str(path)).header
        found[int(path.stem.rpartition("_")[2])] = (header["dom_s"], header["dom_e"])
    return found


def test_angles_and_companions_go_with_the_numbers_in_the_names(petif: Call, raw: Path) -> None:
    ended = petif(*GEOMETRY, "--omega-start", "-10", "--omega-step", "0.5")
    assert ended.exit_code == 0, ended.stderr
    folder = raw.parent / "processed" / "pat"
    assert headers(folder) == {12: (-10.0, -9.5), 13: (-9.5, -9.0), 15: (-8.5, -8.0)}
    image = tifffile.imread(raw / "pat-00012.tif")
    frame = fabio.open(str(folder / "pat_1_12.esperanto"))
    np.testing.assert_array_equal(frame.data[96:160, 96:160], np.rot90(image, 2).astype(np.int32))
    assert {path.name for path in folder.iterdir() if path.suffix != ".esperanto"} == {
        "pat.par", "pat.run", "pat.set", "pat.ccd",
    }  # fmt: skip
    assert "1 of 4 frames of pat are missing: 14" in ended.stderr
    (sweep,) = RunDescription.read(folder / "pat.run").pssweep
    assert (sweep.dstart, sweep.dend, sweep.iunknown3) == (-10.0, -8.0, 4)


@pytest.mark.parametrize("encoding", ["AGI_BITFIELD", "4BYTE_LONG"])
def test_angles_of_a_table(petif: Call, raw: Path, encoding: str) -> None:
    lines = ["file,omega_start,omega_end,phi", "pat-00012.tif,1,2,90", "pat-00013.tif,2,3.5,90", "pat-00015.tif,7,8,91"]
    (raw.parent / "angles.csv").write_text("\n".join(lines))
    ended = petif(*GEOMETRY, "--angles", "angles.csv", "--encoding", encoding)
    assert ended.exit_code == 0, ended.stderr
    folder = raw.parent / "processed" / "pat"
    assert headers(folder) == {12: (1.0, 2.0), 13: (2.0, 3.5), 15: (7.0, 8.0)}
    header = fabio.open(str(folder / "pat_1_15.esperanto")).header
    assert (header["dph_s"], header["spixelformat"]) == (91.0, encoding)


def test_a_dry_run_shows_the_angles_and_writes_nothing(petif: Call, raw: Path) -> None:
    ended = petif(*GEOMETRY, "--omega-start", "-10", "--omega-step", "0.5", "--dry-run")
    assert ended.exit_code == 0, ended.stderr
    assert "pat-00015.tif -> " in ended.stdout
    assert "omega -8.5 to -8, wavelength 0.29 Angstrom, distance 300 mm" in ended.stdout
    told = petif(*GEOMETRY, "--phi-start", "5", "--dry-run", "--json")
    first = json.loads(told.stdout.splitlines()[0])
    assert first["experiment"]["start"] == {"omega": 0.0, "theta": 0.0, "kappa": 0.0, "phi": 5.0}
    assert not (raw.parent / "processed").exists()


def test_sidecars_supply_what_the_options_lack(petif: Call, raw: Path) -> None:
    sidecar = Sidecar(
        shape=(64, 64), pixel_type="float32", exposure_time=0.1, acquired=datetime(2026, 11, 27), center=(20, 40),
        distance=350.0, energy=42_700.0,
    )  # fmt: skip
    for path in list(raw.glob("*.tif")):
        write_sidecar(path, sidecar)
    ended = petif("--omega-start", "0", "--omega-step", "1", "--distance", "351")
    assert ended.exit_code == 0, ended.stderr
    header = fabio.open(str(raw.parent / "processed" / "pat" / "pat_1_12.esperanto")).header
    assert header["dalpha1"] == pytest.approx(0.290361, abs=1e-6)
    assert (header["ddistanceinmm"], header["drealpixelsizex"], header["dexposuretimeinsec"]) == (351.0, 0.2, 0.1)
    assert (header["dxorigininpix"], header["dyorigininpix"]) == (96 + 63 - 20, 96 + 63 - 40)


def test_frames_without_what_the_header_needs_fail_by_name(petif: Call, raw: Path) -> None:
    (raw.parent / "angles.csv").write_text("file,omega\npat-00012.tif,1\npat-00013.tif,2\n")
    ended = petif(*GEOMETRY, "--angles", "angles.csv")
    assert ended.exit_code == 1
    assert "2 of 3 frames converted" in ended.stdout
    assert "pat-00015.tif: no line for pat-00015.tif in angles.csv" in ended.stderr.replace("\n", " ")
    bare = petif("--omega-start", "0")
    assert bare.exit_code == 1
    assert "wavelength; distance; pixel_size; beam_center; exposure" in bare.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--omega-step", "1"], "--omega-step needs --omega-start"),
        (["--omega-start", "1", "--angles", "angles.csv"], "--omega-start and the omega columns of angles.csv"),
        (["--wavelength", "0.3", "--energy", "42.7"], "0.3 Angstrom, but 42.7 keV is 0.290361 Angstrom"),
        (["--beam-center", "12"], "'12' is not two numbers, as 1023.5,1024"),
        (["--pixel-type", "uint16"], 'pixel_type must be "int32" for the format "esperanto", not "uint16"'),
        (["--in-place"], 'output.mode must be "new" for the format "esperanto", not "in_place"'),
        (["--format", "tiff", "--distance", "3"], "--distance: only for ESPERANTO frames. Add --format esperanto"),
    ],
)
def test_contradictory_options_are_reported_before_any_work(
    petif: Call, raw: Path, arguments: list[str], words: str
) -> None:
    (raw.parent / "angles.csv").write_text("file,omega\npat-00012.tif,1\n")
    ended = petif(*arguments)
    assert ended.exit_code == 2
    assert words in " ".join(ended.stderr.split())
    assert not (raw.parent / "processed").exists()
