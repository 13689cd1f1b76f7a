"""`petif convert`, `inspect` and `preview`, from a shell and in a real terminal."""

import json
import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from petif_bluesky.sim.qxrd_file import write_frame
from petif_bluesky.sim.qxrd_sidecar import Sidecar, write_sidecar
from tests.conftest import DATA, QXRD_FILES
from tests.system.petif_command import Call

PETIF = [sys.executable, "-m", "tango_server"]


@pytest.fixture
def raw(tmp_path: Path, data: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    for name in QXRD_FILES:
        shutil.copy(data / name, folder)
    return folder


def frames(folder: Path, count: int, size: int) -> None:
    """Write a frame under many names."""
    folder.mkdir()
    image = np.random.default_rng(5).normal(100, 50, (size, size)).astype(np.float32)
    first = folder / "many-00000.tif"
    write_frame(first, image, document_name=first.name, acquired=datetime(2024, 5, 17))
    for number in range(1, count):
        os.link(first, folder / f"many-{number:05d}.tif")


def test_a_folder(raw: Path, data: Path) -> None:
    shutil.copy(data / "qxrd_f32_64.tif", raw / "some.dark.tif")
    command = [*PETIF, "convert", "raw", "--rotation", "90", "--flip", "1"]
    finished = subprocess.run(command, check=False, cwd=raw.parent, capture_output=True, text=True, timeout=100)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("3 of 3 frames converted")
    for name in QXRD_FILES:
        reference = np.flip(np.rot90(tifffile.imread(data / name)), 1).astype(np.int32)
        np.testing.assert_array_equal(tifffile.imread(raw.parent / "processed" / name), reference)
    assert not (raw.parent / "processed" / "some.dark.tif").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--pattern", "x*", "--pattern", "y*"], ["x* or y*", "--pattern", "3 frames"]),
        (["nested"], ["raw/nested", "--recursive", "1 frame"]),
        (["darks"], ["raw/darks", "--include-dark", "1 frame"]),
        (["empty"], ["raw/empty", ".tif, .tiff"]),
    ],
    ids=["pattern", "sub-folder", "dark", "empty"],
)
def test_folder_without_frames_is_named_with_the_option_to_use(
    petif: Call, raw: Path, data: Path, options: list[str], words: list[str]
) -> None:
    folder = "raw" if options[0].startswith("--") else f"raw/{options.pop()}"
    for name in ("nested/sub/a.tif", "darks/a.dark.tif"):
        (raw / name).parent.mkdir(parents=True)
        shutil.copy(data / "qxrd_f32_64.tif", raw / name)
    (raw / "empty").mkdir()
    finished = petif("convert", folder, *options)
    assert finished.exit_code == petif("convert", "raw/nothing.tif").exit_code == 1
    for word in words:
        assert word in finished.stderr
    assert petif("convert", folder, "--dry-run", *options).exit_code == 1


@pytest.mark.parametrize("option", [[], ["--dry-run"]], ids=["convert", "dry run"])
def test_folder_without_frames_is_named_beside_others(petif: Call, raw: Path, option: list[str]) -> None:
    (raw / "empty").mkdir()
    finished = petif("convert", "raw", "raw/empty", *option)
    assert finished.exit_code == 1
    assert "raw/empty: no frames" in finished.stderr
    assert "3 frames" in finished.stdout


def test_repeated_failure_is_shown_a_few_times_then_counted(petif: Call, raw: Path, data: Path) -> None:
    for number in range(9):
        shutil.copy(data / "not_a_tiff.tif", raw / f"broken-{number}.tif")
    shutil.copy(data / "truncated_tail.tif", raw / "other.tif")
    failed = petif("convert", "raw")
    assert failed.exit_code == 1
    assert failed.stderr.count("starts with b'hell'") == 6
    assert "4 more frames for the same reason: not a TIFF file: it starts with" in failed.stderr
    assert "other.tif" in failed.stderr
    assert f"10 failed; output in {raw.parent / 'processed'}" in failed.stdout
    everything = petif("convert", "raw", "--json").stdout.splitlines()
    assert len([line for line in everything if json.loads(line)["outcome"] == "failed"]) == 10


def test_exit_codes(petif: Call, raw: Path, data: Path) -> None:
    assert petif("convert", "raw/qxrd_r16_64.tif").exit_code == 0
    shutil.copy(data / "not_a_tiff.tif", raw)
    failed = petif("convert", "raw")
    assert failed.exit_code == 1
    assert "not_a_tiff.tif: not a TIFF file: it starts with" in failed.stderr
    assert "3 of 4 frames converted" in failed.stdout
    assert petif("convert", "raw/nothing.tif").exit_code == 1
    for wrong in (
        ["convert"],
        ["convert", "raw", "--rotation", "45"],
        ["convert", "raw", "--backup"],
    ):
        assert petif(*wrong).exit_code == 2, wrong


def test_circle_of_symbolic_links_is_named_beside_others(petif: Call, raw: Path) -> None:
    (raw / "circle.tif").symlink_to("circle.tif")
    for option in ([], ["--dry-run"]):
        failed = petif("convert", "raw/circle.tif", "raw/qxrd_r16_64.tif", *option)
        assert failed.exit_code == 1
        assert "circle.tif: the path cannot be resolved" in failed.stderr
        assert ("1 frame would be converted" if option else "1 of 1 frames converted") in failed.stdout


def test_dry_run_json_and_newer_only(petif: Call, raw: Path) -> None:
    told = petif("convert", "raw", "--dry-run")
    assert told.exit_code == 0
    assert told.stdout.count(" -> ") == 3
    assert told.stdout.splitlines()[-1] == "dry run: 3 frames would be converted, 0 skipped, 0 not possible"
    assert str(raw.parent / "processed" / "qxrd_f32_64.tif") in told.stdout
    assert not (raw.parent / "processed").exists()
    reports = [json.loads(line) for line in petif("convert", "raw", "--json", "--workers", "2").stdout.splitlines()]
    assert sorted(Path(report["source"]).name for report in reports) == sorted(QXRD_FILES)
    assert {report["outcome"] for report in reports} == {"converted"}
    os.utime(raw / "qxrd_f32_64.tif", (4e9, 4e9))
    again = petif("convert", "raw", "--newer-only").stdout
    assert "1 of 3 frames converted" in again
    assert "2 skipped" in again


def test_corrections_are_applied_and_a_changed_dark_is_noticed(petif: Call, raw: Path, tmp_path: Path) -> None:
    frame = raw / "qxrd_r16_64.tif"
    darks = tmp_path / "darks"
    darks.mkdir()
    for number in (0, 1):
        tifffile.imwrite(darks / f"{number}.dark.tif", np.full((64, 64), 2 + 4 * number, np.uint16))
    mask = np.zeros((64, 64), np.uint8)
    mask[10, 20] = 1
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    command = ["convert", str(frame), "--dark", "darks", "--mask", "mask.tif", "--saturation", "60000", "--json"]
    report = json.loads(petif(*command, "--rotation", "90").stdout)
    expected = tifffile.imread(frame).astype(np.int32) - 4
    expected[10, 20] = 0
    np.testing.assert_array_equal(tifffile.imread(report["output"]), np.rot90(expected))
    assert report["pixels"]["masked"] == 1
    assert [master["kind"] for master in report["masters"]] == ["dark", "dark", "mask"]
    again = [*command, "--rotation", "90", "--newer-only"]
    assert json.loads(petif(*again).stdout)["outcome"] == "skipped"
    tifffile.imwrite(darks / "1.dark.tif", np.full((64, 64), 8, np.uint16))
    assert json.loads(petif(*again).stdout)["outcome"] == "converted"
    assert json.loads(petif(*command, "--newer-only").stdout)["outcome"] == "converted"  # another recipe
    assert petif("convert", str(frame), "--in-place", "--dark", "darks").exit_code == 2  # it needs --backup


def test_dry_run_names_darks_and_damaged_files_at_its_end(petif: Call, raw: Path, data: Path) -> None:
    for name in ("truncated_tail.tif", "not_a_tiff.tif"):
        shutil.copy(data / name, raw)
    shutil.copy(data / "qxrd_f32_64.tif", raw / "some.dark.tif")
    told = petif("convert", "raw", "--dry-run")
    assert told.exit_code == 1
    lines = told.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines[3:]] == ["not possible", "not possible", "left out", "dry run"]
    assert "not_a_tiff.tif: not a TIFF file" in lines[3]
    assert "truncated_tail.tif: incomplete" in lines[4]
    assert str(raw / "some.dark.tif") in lines[5]
    for fact in ("3 frames", "2 not possible", "1 dark left out", "--include-dark"):
        assert fact in lines[6]
    as_json = petif("convert", "raw", "--dry-run", "--json")
    items = {Path(item["source"]).name: item for item in map(json.loads, as_json.stdout.splitlines())}
    assert items.keys() == {*QXRD_FILES, "truncated_tail.tif", "not_a_tiff.tif"}
    assert "tag 269" in items["truncated_tail.tif"]["problem"]
    assert items["truncated_tail.tif"]["output"] is None
    assert "some.dark.tif" in as_json.stderr
    assert not (raw.parent / "processed").exists()


def test_words_of_options_in_any_case_and_explained(petif: Call, raw: Path) -> None:
    assert petif("convert", "raw", "--preset", "XDI", "--flip", "None", "--dry-run").exit_code == 0
    wrong = petif("convert", "raw", "--flip", "horizontal")
    assert wrong.exit_code == 2
    for meaning in ("'horizontal'", "0 (up-down)", "1 (left-right)", "both (up-down and left-right)", "none (no flip)"):
        assert meaning in wrong.stderr
    wrong = petif("preview", "raw/qxrd_f32_64.tif", "--preset", "crysalis")
    assert wrong.exit_code == 2
    for meaning in ("'crysalis'", "xdi (int32", "xdi-unsigned (uint32", "esperanto (for CrysAlis Pro)"):
        assert meaning in wrong.stderr


@pytest.mark.long
def test_frames_of_two_files_are_chosen_and_converted(petif: Call, raw: Path, data: Path) -> None:
    for name in ("04_grid_4d.h5", "11_edf/three_blocks.edf", "02_lambda_uneven/l1_test_00002_m02.nxs"):
        shutil.copy(data / "made" / name, raw)
    shutil.copy(data / "made" / "02_lambda_uneven" / "l1_test_00002_m01.nxs", raw)
    files = ["raw/04_grid_4d.h5", "raw/three_blocks.edf"]
    dry = petif("convert", *files, "--frames", "0:100:2", "--dry-run")
    assert "raw/04_grid_4d.h5 frame 4 -> " in dry.output
    assert "dry run: 5 frames would be converted" in dry.output
    result = petif("convert", *files, "--frames", "0:100:2", "--pixel-type", "source")
    assert result.stdout.startswith("5 of 5 frames converted"), result.output
    outputs = sorted(path.name for path in (raw.parent / "processed").glob("*.tif"))
    assert outputs == [f"04_grid_4d_0000{index}.tif" for index in (0, 2, 4)] + [
        f"three_blocks_0000{index}.tif" for index in (0, 2)
    ]
    with h5py.File(raw / "04_grid_4d.h5") as file:
        stack = file["/entry/data/data"][()]
    image = stack.reshape(-1, *stack.shape[-2:])[4]
    np.testing.assert_array_equal(tifffile.imread(raw.parent / "processed" / outputs[2]), image)
    assert petif("convert", files[0], "--frames", "9").exit_code == 1
    other = petif("convert", "raw/l1_test_00002_m02.nxs")
    assert (other.exit_code, "skipped: its frames are converted from another file" in other.output) == (0, True)


def test_failed_frames_of_a_stack_are_named_by_their_index(petif: Call, raw: Path) -> None:
    stack = raw / "09_chunks_bslz4.h5"  # frame 1 does not decode, frame 2 was never written
    shutil.copy(DATA / "made" / stack.name, stack)
    planned = petif("convert", f"raw/{stack.name}", "--dry-run")
    assert f"not possible: {stack} frame 2: incomplete file: the chunk" in planned.stdout
    finished = petif("convert", f"raw/{stack.name}", "--json")
    reasons = [json.loads(line)["reason"] for line in finished.stdout.splitlines()]
    assert sorted(reason.split(": ")[0] for reason in reasons if reason) == [f"{stack} frame 1", f"{stack} frame 2"]
    combine = ("--combine", "sum", "--every", "2", "--on-incomplete", "combine")
    assert f"{stack} frame 2: Combined 1 of 2" in petif("convert", f"raw/{stack.name}", *combine).stderr


@pytest.mark.parametrize("combine", [(), ("--combine", "mean", "--every", "3")])
def test_dry_run_says_what_becomes_of_existing_outputs(petif: Call, raw: Path, combine: tuple[str, ...]) -> None:
    shutil.copy(DATA / "made" / "06_int16_sum.h5", raw)
    call = ("convert", "raw/06_int16_sum.h5", "--frames", "0:3", *combine)
    assert petif(*call).exit_code == 0
    number = 1 if combine else 3
    skipped = petif(*call, "--on-existing", "skip", "--dry-run")
    assert f"{number} skipped, 0 not possible" in skipped.stdout
    refused = petif(*call, "--on-existing", "refuse", "--dry-run")
    assert (refused.exit_code, f"0 skipped, {number} not possible" in refused.stdout) == (1, True)
    assert "0 skipped, 0 not possible" in petif(*call, "--on-existing", "number", "--dry-run").stdout


def test_patterns_and_recursion(petif: Call, raw: Path) -> None:
    (raw / "deep").mkdir()
    shutil.copy(raw / "qxrd_r16_64.tif", raw / "deep" / "inner.tif")
    assert "1 of 1" in petif("convert", "raw", "--pattern", "*r32*").stdout
    assert "4 of 4" in petif("convert", "raw", "--recursive").stdout
    assert (raw.parent / "processed" / "deep" / "inner.tif").exists()


def test_two_sources_for_one_output_are_both_refused(petif: Call, raw: Path) -> None:
    (raw / "deep").mkdir()
    shutil.copy(raw / "qxrd_r16_64.tif", raw / "deep" / "qxrd_f32_64.tif")
    finished = petif("convert", "raw", "--recursive", "--output-dir", "out")
    assert finished.exit_code == 1
    assert "2 of 4 frames converted" in finished.stdout
    assert not (raw.parent / "out" / "qxrd_f32_64.tif").exists()
    again = petif("convert", "raw/qxrd_f32_64.tif", "--output-dir", "out")
    assert again.exit_code == 0
    other = petif("convert", "raw/deep/qxrd_f32_64.tif", "--output-dir", "out")
    assert other.exit_code == 1
    assert "made from another source" in other.stderr


def test_in_place_with_a_backup(petif: Call, raw: Path, data: Path) -> None:
    assert petif("convert", "raw", "--in-place", "--backup", "--rotation", "180").exit_code == 0
    for name in QXRD_FILES:
        assert (raw / f"{name}.orig").read_bytes() == (data / name).read_bytes()
        reference = np.rot90(tifffile.imread(data / name), 2).astype(np.int32)
        np.testing.assert_array_equal(tifffile.imread(raw / name), reference)
    assert "3 skipped" in petif("convert", "raw", "--in-place", "--rotation", "180").stdout


def test_inspect_describes_a_file(petif: Call, raw: Path, data: Path) -> None:
    petif("convert", "raw", "--rotation", "90")
    finished = petif("inspect", "raw/qxrd_f32_64.tif", "processed/qxrd_f32_64.tif", str(data / "truncated_tail.tif"))
    assert finished.exit_code == 1
    assert "NOT complete: the value of tag 269" in finished.stdout
    described: list[dict[str, Any]] = [
        json.loads(line)
        for line in petif("inspect", "raw/qxrd_f32_64.tif", "processed/qxrd_f32_64.tif", "--json").stdout.splitlines()
    ]
    assert described[0]["directory"] == "after the pixels"
    assert described[0]["provenance"] is None
    assert described[1]["provenance"]["recipe"]["rotation"] == 90
    assert described[1]["pages"][0]["pixel_type"] == "int32"


def test_inspect_takes_folders(petif: Call, raw: Path, data: Path) -> None:
    shutil.copy(data / "qxrd_f32_64.tif", raw / "some.dark.tif")
    (raw / "note.txt").touch()
    finished = petif("inspect", "raw", "--json")
    assert finished.exit_code == 0
    paths = [json.loads(line)["path"] for line in finished.stdout.splitlines()]
    assert paths == sorted(f"raw/{name}" for name in QXRD_FILES)
    assert petif("inspect", "raw/some.dark.tif").exit_code == 0
    (raw / "empty").mkdir()
    finished = petif("inspect", "raw", "raw/empty", "raw/nothing.tif")
    assert finished.exit_code == 1
    assert "raw/empty: no frames" in finished.stderr
    assert "raw/nothing.tif: no such file" in finished.stderr


def test_file_that_kills_its_reader_costs_inspect_nothing_else(petif: Call, raw: Path) -> None:
    for name in ("12_rest/crash_hdf5_2.0.0.h5", "04_eiger_2d.h5"):
        shutil.copy(DATA / "made" / name, raw)
    finished = petif("inspect", "raw/crash_hdf5_2.0.0.h5", "raw/04_eiger_2d.h5")
    assert finished.exit_code == 1
    assert "raw/crash_hdf5_2.0.0.h5: cannot read the file: its reader crashed" in finished.stderr
    assert "raw/04_eiger_2d.h5: complete" in finished.stdout


def test_preview_of_a_stack_names_its_own_option(petif: Call, raw: Path) -> None:
    for name in ("12_rest/crash_hdf5_2.0.0.h5", "06_int16_sum.h5", "11_edf/three_blocks.edf"):
        shutil.copy(DATA / "made" / name, raw)
    for name, frames in (("06_int16_sum.h5", 10), ("three_blocks.edf", 3)):
        assert f"it has {frames} frames. Name one: --frame, or" in petif("preview", f"raw/{name}").stderr
    killed = petif("preview", "raw/crash_hdf5_2.0.0.h5", "--frame", "0")
    assert (killed.exit_code, "its reader crashed" in killed.stderr) == (1, True)
    assert petif("preview", "raw/06_int16_sum.h5", "--frame", "7").exit_code == 0
    assert (raw.parent / "06_int16_sum_00007.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["a$b$.tif", "$x_$.tif", "a\udce9.tif"], ids=["dollars", "formula", "undecodable"])
def test_preview_of_odd_names(petif: Call, raw: Path, name: str) -> None:
    if os.name == "nt" and "\udce9" in name:
        pytest.skip("names are Unicode there")
    shutil.copy(raw / "qxrd_f32_64.tif", raw / name)
    finished = petif("preview", f"raw/{name}")
    assert finished.exit_code == 0, finished.stderr
    assert (raw.parent / name).with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_preview_draws_a_picture_and_converts_nothing(petif: Call, raw: Path) -> None:
    described = Sidecar(
        shape=(64, 64),
        pixel_type="float32",
        exposure_time=0.1,
        acquired=datetime(2024, 5, 17),
        center=(20, 40),
        distance=300.0,
        energy=4e4,
    )
    write_sidecar(raw / "qxrd_f32_64.tif", described)
    finished = petif("preview", "raw/qxrd_f32_64.tif", "--rotation", "90")
    assert finished.exit_code == 0, finished.stderr
    assert (raw.parent / "qxrd_f32_64.png").read_bytes().startswith(b"\x89PNG")
    assert not (raw.parent / "processed").exists()
    assert petif("preview", "raw/nothing.tif").exit_code == 1


def test_the_second_run_does_not_convert_what_the_first_has_made(petif: Call, raw: Path) -> None:
    arguments = ("convert", "raw", "--recursive", "--output-dir", "raw/out", "--template", "{stem}_xdi")
    assert "3 of 3" in petif(*arguments).stdout
    assert "3 of 3" in petif(*arguments).stdout
    assert len(list((raw / "out").iterdir())) == 3


@pytest.mark.skipif(os.name == "nt", reason="pexpect's terminal is POSIX's")
def test_100_frames_in_a_real_terminal(tmp_path: Path) -> None:
    import pexpect

    frames(tmp_path / "raw", 100, 64)
    terminal = pexpect.spawn(
        PETIF[0],
        [*PETIF[1:], "convert", "raw", "--rotation", "90"],
        cwd=str(tmp_path),
        dimensions=(24, 100),
        timeout=60,
    )
    terminal.expect(r"\d+/100")
    terminal.expect(r"\d+\.\d frames/s")
    terminal.expect(r"100 of 100 frames converted in [\d.]+ s \([\d.]+ frames/s\), 0 skipped, 0 failed")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    assert len(list((tmp_path / "processed").glob("*.tif"))) == 100


@pytest.mark.skipif(os.name == "nt", reason="pexpect's terminal is POSIX's")
def test_ctrl_c_finishes_what_is_running_and_says_what_is_left(tmp_path: Path) -> None:
    import pexpect

    frames(tmp_path / "raw", 300, 1024)
    terminal = pexpect.spawn(
        PETIF[0], [*PETIF[1:], "convert", "raw"], cwd=str(tmp_path), dimensions=(24, 100), timeout=60
    )
    terminal.expect(r"[1-9]\d*/300")
    terminal.sendintr()
    terminal.expect(r"(\d+) of 300 frames converted.*, (\d+) not started")
    converted, left = int(terminal.match[1]), int(terminal.match[2])
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 130
    assert converted + left == 300
    assert len(list((tmp_path / "processed").iterdir())) == converted  # those that ran then, too, and no temporary file
    for path in (tmp_path / "processed").iterdir():
        assert tifffile.imread(path).shape == (1024, 1024)


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="Windows kills a process together with its files")
def test_what_a_killed_call_left_is_removed_by_the_next(tmp_path: Path, petif: Call) -> None:
    frames(tmp_path / "raw", 30, 1024)
    processed = tmp_path / "processed"
    with subprocess.Popen([*PETIF, "convert", "raw"], cwd=tmp_path, stderr=subprocess.DEVNULL) as running:
        while not list(processed.glob(".*.petif-tmp")):
            assert running.poll() is None, "it was faster than this test"
        running.kill()
    assert "30 of 30" in petif("convert", "raw").stdout
    assert not list(processed.glob(".*.petif-tmp"))
