"""`petif convert --combine`, as one types it; the reference is numpy."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fabio
import h5py
import numpy as np
import psutil
import pytest
import tifffile
from numpy.typing import NDArray

from tango_server.conversion.hdf5.open_files import close_all
from tests.system.petif_command import Call
from tests.unit.tango_server.conversion.lambda_detector.made_files import SHAPE as SHAPE_OF_MODULE
from tests.unit.tango_server.conversion.lambda_detector.made_files import frames_of, write_detector

Image = NDArray[Any]
SHAPE = (6, 8)
PETIF = [sys.executable, "-m", "tango_server"]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def some(count: int, shape: tuple[int, ...] = SHAPE, kind: str = "uint16") -> list[Image]:
    return list(np.random.default_rng(7).integers(0, 1000, (count, *shape)).astype(kind))


def write(folder: Path, images: Sequence[Image], name: str = "pat-{}") -> list[Path]:
    """Write frames with numbers from 8 on, so that the order of their texts is another one."""
    paths = [folder / f"{name.format(number)}.tif" for number in range(8, 8 + len(images))]
    for path, image in zip(paths, images, strict=True):
        tifffile.imwrite(path, image)
    return paths


def outputs(folder: Path) -> dict[str, Image]:
    return {path.name: tifffile.imread(path) for path in sorted((folder / "processed").rglob("*.tif"))}


def reports(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def combined(path: Path) -> dict[str, Any]:
    with tifffile.TiffFile(path) as opened:
        found = json.loads(opened.pages[0].tags["ImageDescription"].value)  # type: ignore[union-attr]
    return dict(found["combined"])


@pytest.mark.parametrize(
    ("method", "reference"),
    [
        ("sum", lambda images: images.sum(axis=0)),
        ("median", lambda images: np.median(images, axis=0)),
    ],
)
def test_every_three_frames_become_one(petif: Call, raw: Path, method: str, reference: Any) -> None:
    images = some(6)
    write(raw, images)
    ended = petif("convert", "raw", "--combine", method, "--every", "3", "--rotation", "90", "--pixel-type", "float64")
    assert ended.exit_code == 0, ended.stderr
    assert ended.stdout.startswith("2 of 2 groups combined, from 6 of 6 frames, in ")
    found = outputs(raw.parent)
    assert list(found) == ["pat-11.tif", "pat-8.tif"]
    for name, start in (("pat-8.tif", 0), ("pat-11.tif", 3)):
        np.testing.assert_array_equal(found[name], np.rot90(reference(np.stack(images[start : start + 3]))))


def test_sigma_clip_leaves_out_what_sigma_says(petif: Call, raw: Path) -> None:
    images = np.stack(some(8)).astype(np.float64)
    images[3, 2, 2] = 60_000
    write(raw, list(images))
    ended = petif(
        "convert", "raw", "--combine", "sigma_clip", "--sigma", "2", "--every", "8", "--pixel-type", "float64"
    )
    assert ended.exit_code == 0, ended.stderr
    kept = np.abs(images - np.median(images, axis=0)) <= 2 * images.std(axis=0)
    np.testing.assert_allclose(outputs(raw.parent)["pat-8.tif"], images.mean(axis=0, where=kept), rtol=1e-15)


def test_reports_list_the_members_in_their_order(petif: Call, raw: Path) -> None:
    paths = write(raw, some(4))
    ended = petif("convert", *map(str, paths[::-1]), "--combine", "sum", "--every", "2", "--json")
    found = sorted(reports(ended.stdout), key=lambda report: report["group"])
    assert [(each["group"], each["source"], each["outcome"]) for each in found] == [
        ("1", str(paths[0]), "converted"), ("2", str(paths[2]), "converted"),
    ]  # fmt: skip
    assert [[member["source"] for member in each["members"]] for each in found] == [
        [str(path) for path in paths[:2]], [str(path) for path in paths[2:]],
    ]  # fmt: skip
    assert {member["outcome"] for each in found for member in each["members"]} == {"grouped"}
    shown = petif("inspect", found[0]["output"]).stdout
    assert "sum of 2 of 2 frames: pat-8.tif to pat-9.tif" in shown


def test_last_group_that_is_not_full_fails_or_says_how_many(petif: Call, raw: Path) -> None:
    images = some(5)
    write(raw, images)
    arguments = ("convert", "raw", "--combine", "sum", "--every", "3")
    ended = petif(*arguments)
    assert ended.exit_code == 1
    assert "pat-11.tif: cannot combine: the last group has only 2 of 3 frames." in ended.stderr
    assert list(outputs(raw.parent)) == ["pat-8.tif"]
    assert petif(*arguments, "--on-incomplete", "combine").exit_code == 0
    found = outputs(raw.parent)
    assert list(found) == ["pat-11_2of3.tif", "pat-8.tif"]
    np.testing.assert_array_equal(found["pat-11_2of3.tif"], np.sum(images[3:], axis=0))
    facts = combined(raw.parent / "processed" / "pat-11_2of3.tif")
    assert (facts["frames"], facts["used"], facts["first"], facts["last"]) == (3, 2, "pat-11.tif", "pat-12.tif")


@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_a_member_that_cannot_be_read_is_named(petif: Call, raw: Path, how: str) -> None:
    images = some(6)
    paths = write(raw, images)
    paths[1].unlink()
    if how == "damaged":
        paths[1].write_bytes(paths[0].read_bytes()[:60])
    arguments = ("convert", *map(str, paths), "--combine", "mean", "--every", "3")
    ended = petif(*arguments, "--json")
    assert ended.exit_code == 1
    by_group = {each["group"]: each for each in reports(ended.stdout)}
    assert by_group["1"]["outcome"] == "failed"
    assert "pat-9.tif" in by_group["1"]["reason"]
    assert [bool(each["reason"]) for each in by_group["1"]["members"]] == [True] * 3
    assert by_group["1"]["members"][0]["reason"].startswith("not combined")
    assert by_group["2"]["outcome"] == "converted"
    assert petif(*arguments, "--on-incomplete", "combine", "--on-existing", "replace_own").exit_code == 0
    found = outputs(raw.parent)
    assert list(found) == ["pat-11.tif", "pat-8_2of3.tif"]
    np.testing.assert_array_equal(found["pat-8_2of3.tif"], np.mean([images[0], images[2]], axis=0).astype(np.int32))


def test_members_of_other_shapes_fail_and_other_groups_do_not(petif: Call, raw: Path) -> None:
    images = some(4)
    write(raw, [images[0], np.ones((5, 5), np.uint16), *images[2:]])
    ended = petif("convert", "raw", "--combine", "sum", "--every", "2")
    assert ended.exit_code == 1
    assert "pat-9.tif: cannot combine it with" in ended.stderr
    assert "5 x 5" in ended.stderr
    assert list(outputs(raw.parent)) == ["pat-10.tif"]


def test_files_of_several_pages_are_refused_by_name(petif: Call, raw: Path) -> None:
    write(raw, some(2))
    tifffile.imwrite(raw / "pat-10.tif", np.stack(some(3)), photometric="minisblack")
    tifffile.imwrite(raw / "pat-11.tif", some(1)[0])
    ended = petif("convert", "raw", "--combine", "sum", "--every", "2")
    assert ended.exit_code == 1
    assert "pat-10.tif: cannot combine it: it has 3 pages" in ended.stderr
    assert list(outputs(raw.parent)) == ["pat-8.tif"]


def test_frames_inside_of_files_are_counted(petif: Call, raw: Path) -> None:
    images = some(7)
    for name, part in (("run_9", images[:5]), ("run_10", images[5:])):
        with h5py.File(raw / f"{name}.h5", "w") as file:
            file.create_dataset("entry/data/data", data=np.stack(part))
    ended = petif("convert", "raw", "--combine", "sum", "--every", "3", "--on-incomplete", "combine")
    assert ended.exit_code == 0, ended.stderr
    found = outputs(raw.parent)
    assert list(found) == ["run_10_00001_1of3.tif", "run_9_00000.tif", "run_9_00003.tif"]
    np.testing.assert_array_equal(found["run_9_00003.tif"], np.sum(images[3:6], axis=0))
    np.testing.assert_array_equal(found["run_10_00001_1of3.tif"], images[6])


def test_blocks_of_an_edf_file_are_counted(petif: Call, raw: Path) -> None:
    images = some(4)
    file = fabio.edfimage.EdfImage(data=images[0])
    for image in images[1:]:
        file.append_frame(data=image)
    file.write(str(raw / "scan.edf"))
    assert petif("convert", "raw", "--combine", "max", "--every", "2").exit_code == 0
    found = outputs(raw.parent)
    assert list(found) == ["scan_00000.tif", "scan_00002.tif"]
    np.testing.assert_array_equal(found["scan_00002.tif"], np.maximum(images[2], images[3]))


def test_modules_of_a_lambda_are_one_member(petif: Call, raw: Path) -> None:
    write_detector(raw, count=2, frames=4)
    close_all()
    ended = petif("convert", "raw", *map(str, raw.iterdir()), "--combine", "sum", "--every", "2", "--json")
    made = [each for each in reports(ended.stdout) if each["outcome"] == "converted"]
    made.sort(key=lambda each: str(each["output"]))
    assert [[member["frame"] for member in each["members"]] for each in made] == [[0, 1], [2, 3]]
    second = outputs(raw.parent)[Path(made[1]["output"]).name]
    rows = SHAPE_OF_MODULE[0]
    for module, corner in ((1, np.s_[:rows, 2:]), (2, np.s_[rows + 2 :, :-2])):
        unmasked = np.s_[module + 1 :]  # each has a masked pixel in the row of its number
        np.testing.assert_array_equal(second[corner][unmasked], frames_of(module, 4)[2:].sum(axis=0)[unmasked])


@pytest.mark.long
def test_frames_after_a_file_of_unknown_length_are_refused(petif: Call, raw: Path) -> None:
    for number in (1, 2, 4, 5):
        with h5py.File(raw / f"run_{number}.h5", "w") as file:
            file.create_dataset("entry/data/data", data=np.stack(some(3)))
    (raw / "run_3.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200))
    ended = petif("convert", "raw", "--combine", "sum", "--every", "3", "--json")
    assert ended.exit_code == 1
    found = {Path(each["source"]).name: each for each in reports(ended.stdout)}
    assert [found[f"run_{number}.h5"]["outcome"] for number in range(1, 6)] == [
        "converted", "converted", "failed", "failed", "failed",
    ]  # fmt: skip
    assert "run_3.h5" in found["run_4.h5"]["reason"]


def test_folders_are_counted_each_by_itself(petif: Call, raw: Path) -> None:
    for name in ("s-2", "s-10"):
        (raw / name).mkdir()
        write(raw / name, some(3))
    ended = petif("convert", "raw", "--recursive", "--combine", "sum", "--every", "2", "--on-incomplete", "combine")
    assert ended.exit_code == 0
    made = [str(path.relative_to(raw.parent / "processed")) for path in (raw.parent / "processed").rglob("*.tif")]
    assert sorted(made) == ["s-10/pat-10_1of2.tif", "s-10/pat-8.tif", "s-2/pat-10_1of2.tif", "s-2/pat-8.tif"]


def test_two_groups_with_one_output_are_both_refused(petif: Call, raw: Path) -> None:
    write(raw, some(4))
    ended = petif("convert", "raw", "--combine", "sum", "--every", "2", "--template", "all")
    assert ended.exit_code == 1
    for first, other in (("pat-8.tif", "pat-10.tif"), ("pat-10.tif", "pat-8.tif")):
        assert f"{raw / first}: cannot convert: its output {raw.parent / 'processed' / 'all.tif'}" in ended.stderr
        assert f"would also be the output of {raw / other}" in ended.stderr
    assert not outputs(raw.parent)


def test_a_template_may_name_group_first_and_last(petif: Call, raw: Path) -> None:
    write(raw, some(4))
    arguments = ("convert", "raw", "--combine", "sum", "--every", "2")
    assert petif(*arguments, "--template", "{group:0>3}_{first}_{last}").exit_code == 0
    assert list(outputs(raw.parent)) == ["001_pat-8_pat-9.tif", "002_pat-10_pat-11.tif"]


def test_dark_is_subtracted_from_each_member(petif: Call, raw: Path) -> None:
    images = [image + np.uint16(100) for image in some(4)]
    write(raw, images)
    dark = raw.parent / "dark.tif"
    tifffile.imwrite(dark, np.full(SHAPE, 30, np.uint16))
    arguments = ("convert", "raw", "--combine", "sum", "--every", "2", "--dark", str(dark))
    ended = petif(*arguments, "--json")
    assert ended.exit_code == 0, ended.stderr
    np.testing.assert_array_equal(outputs(raw.parent)["pat-10.tif"], images[2].astype(int) + images[3] - 60)
    assert [each["kind"] for report in reports(ended.stdout) for each in report["masters"]] == ["dark", "dark"]
    assert "2 skipped" in petif(*arguments, "--newer-only").stdout
    tifffile.imwrite(dark, np.full(SHAPE, 31, np.uint16))
    assert "0 skipped" in petif(*arguments, "--newer-only").stdout


def test_newer_only_repeats_groups_that_are_not_current(petif: Call, raw: Path) -> None:
    paths = write(raw, some(5))
    arguments = ("convert", "raw", "--newer-only", "--on-incomplete", "combine", "--combine")
    sums = (*arguments, "sum", "--every", "2")
    assert "3 of 3 groups combined" in petif(*sums).stdout
    assert "0 of 3 groups combined" in petif(*sums).stdout
    (raw.parent / "processed" / "pat-8.tif.members.csv").unlink()
    assert "1 of 3 groups combined" in petif(*sums).stdout
    now = time.time() + 10
    os.utime(paths[3], (now, now))
    assert "1 of 3 groups combined" in petif(*sums).stdout
    for path in (raw.parent / "processed").iterdir():
        os.utime(path, (now + 1, now + 1))
    assert "3 of 3 groups combined" in petif(*arguments, "mean", "--every", "2").stdout  # another recipe
    paths[0].unlink()  # other members, all older than the outputs, and pat-9 begins the first group
    for path in (raw.parent / "processed").iterdir():
        os.utime(path, (now + 1, now + 1))
    (raw.parent / "processed" / "pat-8.tif").rename(raw.parent / "processed" / "pat-9.tif")
    ended = petif(*arguments, "mean", "--every", "2", "--on-existing", "number", "--json")
    assert {each["outcome"] for each in reports(ended.stdout)} == {"converted"}


def test_dry_run_lists_groups_with_members_and_outputs(petif: Call, raw: Path) -> None:
    paths = write(raw, some(7))
    paths[4].write_bytes(paths[0].read_bytes()[:60])
    arguments = ("convert", "raw", "--combine", "sum", "--every", "2", "--dry-run")
    ended = petif(*arguments)
    processed = raw.parent / "processed"
    assert ended.exit_code == 1
    assert ended.stdout.splitlines()[:3] == [
        f"group 1, 2 of 2 frames -> {processed / 'pat-8.tif'}", f"    {paths[0]}", f"    {paths[1]}",
    ]  # fmt: skip
    assert f"not possible: {paths[4]}: cannot combine: 1 of 2 frames failed: {paths[4]}" in ended.stdout
    assert f"not possible: {paths[6]}: cannot combine: the last group has only 1 of 2 frames." in ended.stdout
    assert "dry run: 2 groups would be combined from 4 frames, 0 skipped, 2 not possible" in ended.stdout
    ended = petif(*arguments, "--on-incomplete", "combine", "--json")
    assert ended.exit_code == 0
    found = reports(ended.stdout)
    assert [Path(each["output"]).name for each in found] == [
        "pat-8.tif", "pat-10.tif", "pat-12_1of2.tif", "pat-14_1of2.tif",
    ]  # fmt: skip
    assert [member["source"] for member in found[2]["members"]] == [str(paths[4]), str(paths[5])]
    assert [bool(member["problem"]) for member in found[2]["members"]] == [True, False]
    assert not processed.exists()


def test_gaps_in_the_numbers_are_warned_of(petif: Call, raw: Path) -> None:
    write(raw, some(5))[2].unlink()
    ended = petif("convert", "raw", "--combine", "sum", "--every", "2", "--dry-run")
    assert "pat: no frame with number 10." in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["convert", "raw", "--every", "2"], "--every: only with --combine."),
        (
            ["convert", "raw", "--sigma", "2", "--on-incomplete", "fail"],
            "--sigma, --on-incomplete: only with --combine.",
        ),
        (["convert", "raw", "--combine", "sum"], "--combine needs --every"),
        (["convert", "raw", "--combine", "sum", "--every", "0"], "every must be a whole number from 2"),
        (["convert", "raw", "--combine", "sum", "--every", "100000"], "every must be a whole number from 2 to 10000"),
        (["convert", "raw", "--combine", "sum", "--every", "2", "--sigma", "2"], "--sigma needs --combine sigma_clip."),
        (["convert", "raw", "--combine", "sum", "--every", "2", "--in-place"], "in_place"),
        (["watch", "raw", "--combine", "sum"], "--combine: a watch does not know when a group is complete."),
    ],
)
def test_contradictory_options_are_usage_errors(petif: Call, raw: Path, arguments: list[str], words: str) -> None:
    write(raw, some(2))
    ended = petif(*arguments)
    assert ended.exit_code == 2
    assert words in ended.stderr
    assert not (raw.parent / "processed").exists()


GEOMETRY = ["--wavelength", "0.29", "--distance", "300", "--pixel-size", "0.2", "--beam-center", "30,31.5"]
ANGLES = ["--exposure", "0.5", "--omega-start", "-10", "--omega-step", "0.5"]


def test_esperanto_frames_of_groups_have_the_angles_of_all(petif: Call, raw: Path) -> None:
    images = some(4, (256, 256))
    write(raw, images)
    arguments = ["convert", "raw", "--format", "esperanto", *GEOMETRY, *ANGLES]
    ended = petif(*arguments, "--combine", "sum", "--every", "2")
    assert ended.exit_code == 0, ended.stderr
    folder = raw.parent / "processed" / "pat"
    frames = [fabio.open(str(folder / f"pat_1_{number}.esperanto")) for number in (1, 2)]  # numbered without gaps
    assert [(each.header["dom_s"], each.header["dom_e"]) for each in frames] == [(-10.0, -9.0), (-9.0, -8.0)]
    assert [each.header["dexposuretimeinsec"] for each in frames] == [1.0, 1.0]
    np.testing.assert_array_equal(frames[1].data, np.rot90(images[2].astype(int) + images[3], 2))
    assert (folder / "pat.run").exists()
    assert "0 of 2 groups combined" in petif(*arguments, "--combine", "sum", "--every", "2", "--newer-only").stdout


def test_esperanto_frames_with_a_gap_between_angles_are_refused(petif: Call, raw: Path) -> None:
    write(raw, some(5, (256, 256)))[1].unlink()
    arguments = ["convert", "raw", "--format", "esperanto", *GEOMETRY, *ANGLES]
    ended = petif(*arguments, "--combine", "sum", "--every", "2")
    assert ended.exit_code == 1
    assert "an ESPERANTO frame needs contiguous angles" in ended.stderr
    assert "1 of 2 groups combined, from 2 of 4 frames" in ended.stdout


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="Windows kills a process together with its files")
def test_groups_of_a_killed_worker_are_combined_again(raw: Path) -> None:
    images = some(30, (1024, 1024))
    write(raw, images)
    processed = raw.parent / "processed"
    command = [*PETIF, "convert", "raw", "--combine", "median", "--every", "10", "--workers", "1", "--json"]
    with subprocess.Popen(
        command, cwd=raw.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        while not list(processed.glob(".*.petif-tmp")):
            assert running.poll() is None, "it was faster than this test"
        (worker,) = [
            each for each in psutil.Process(running.pid).children() if "spawn_main" in " ".join(each.cmdline())
        ]
        worker.kill()
        out, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    assert [each["outcome"] for each in reports(out)] == ["converted"] * 3
    found = outputs(raw.parent)
    assert {path.suffix for path in processed.iterdir()} == {".tif", ".csv"}, "nothing temporary is left"
    for start in (0, 10, 20):
        reference = np.median(np.stack(images[start : start + 10]), axis=0).astype(np.int32)
        np.testing.assert_array_equal(found[f"pat-{start + 8}.tif"], reference)
