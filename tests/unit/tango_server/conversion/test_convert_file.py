"""One file, one recipe, one report: read back with fabio and tifffile, and refused in words."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fabio
import numpy as np
import pytest
import tifffile

from tango_server.conversion import convert_file
from tango_server.conversion.errors import (
    ConversionError,
    ConvertedDifferentlyError,
    IncompleteFileError,
    NoOutputPathError,
    NotATiffError,
    OutputExistsError,
    OutputWriteError,
    OutsideRootsError,
    SourceMissingError,
    UnsupportedImageError,
)
from tango_server.conversion.files.roots import Roots
from tango_server.recipe import Recipe
from tests.conftest import QXRD_FILES

XDI = Recipe.preset("xdi", rotation=90, flip="1")
IN_PLACE = Recipe.preset("xdi", output={"mode": "in_place"})
Put = Callable[[str], Path]


def on_existing(choice: str, **fields: Any) -> Recipe:
    return Recipe.preset("xdi", rotation=90, flip="1", output={"on_existing": choice, **fields})


@pytest.fixture
def source(put: Put) -> Path:
    return put("qxrd_f32_64.tif")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Where the output of `source` goes."""
    return tmp_path / "processed" / "qxrd_f32_64.tif"


@pytest.fixture
def put(tmp_path: Path, data: Path) -> Put:
    def put_file(name: str) -> Path:
        (tmp_path / "raw").mkdir(exist_ok=True)
        return Path(shutil.copy(data / name, tmp_path / "raw" / name))

    return put_file


def both_readers(path: Path) -> np.ndarray[Any, Any]:
    with fabio.open(str(path)) as image:
        by_fabio = image.data
    by_tifffile: np.ndarray[Any, Any] = tifffile.imread(path)
    np.testing.assert_array_equal(by_fabio, by_tifffile)
    return by_tifffile


@pytest.mark.parametrize("name", QXRD_FILES)
@pytest.mark.parametrize("preset", ["xdi", "xdi-unsigned"])
def test_the_presets_write_what_numpy_computes(put: Put, tmp_path: Path, name: str, preset: str) -> None:
    source = put(name)
    before = source.read_bytes()
    report = convert_file(source, Recipe.preset(preset, rotation=90, flip="1"))
    expected = np.flip(np.rot90(tifffile.imread(source)), 1).astype({"xdi": "i4", "xdi-unsigned": "u4"}[preset])
    output = both_readers(tmp_path / "processed" / name)
    np.testing.assert_array_equal(output, expected)
    assert output.dtype == expected.dtype
    assert source.read_bytes() == before
    assert (report.outcome, report.shape, report.pixel_type) == ("converted", (64, 64), expected.dtype.name)
    assert (report.bytes_in, report.bytes_out) == (len(before), (tmp_path / "processed" / name).stat().st_size)
    assert report.output == str(tmp_path / "processed" / name)
    assert report.recipe_hash == Recipe.preset(preset, rotation=90, flip="1").hash


def test_the_layout_is_the_one_that_xdi_reads(source: Path, output: Path, data: Path) -> None:
    convert_file(source, Recipe.preset("xdi"))
    with tifffile.TiffFile(output) as ours, tifffile.TiffFile(data / "fabio_int32_64.tif") as model:
        our_page, model_page = ours.pages[0], model.pages[0]
        assert ours.byteorder == model.byteorder == "<"
        assert our_page.offset == model_page.offset == 8
        assert [tag.code for tag in our_page.tags] == [tag.code for tag in model_page.tags]
        assert [tag.dtype for tag in our_page.tags] == [tag.dtype for tag in model_page.tags]
        free = {"ImageDescription", "StripOffsets", "Software", "DateTime"}
        for our_tag, model_tag in zip(our_page.tags, model_page.tags, strict=True):
            assert our_tag.name in free or our_tag.value == model_tag.value, our_tag.name
        (offset,), (count,) = our_page.dataoffsets, our_page.databytecounts
        assert offset + count == ours.filehandle.size
        assert offset % 4 == 0
        texts_end = max(tag.valueoffset + tag.count for tag in our_page.tags if tag.dtype == 2)
        assert texts_end <= offset
        assert not any(tag.valueoffset % 2 for tag in our_page.tags if tag.dtype == 2), "texts begin at even bytes"


def test_output_names_its_source(source: Path, tmp_path: Path) -> None:
    source = source.rename(source.with_name("Prüfling \N{SNOWMAN}.tif"))
    convert_file(source, XDI)
    with tifffile.TiffFile(tmp_path / "processed" / source.name) as output:
        texts = {tag.name: tag.value for tag in output.pages[0].tags if tag.dtype == 2}
    record = json.loads(texts["ImageDescription"])
    assert record["source"] == source.name
    assert record["recipe"]["rotation"] == 90
    assert texts["ImageDescription"].isascii()
    assert texts["Software"].startswith("petif-bluesky ")
    assert texts["DateTime"] == "2024:05:17 12:34:56"


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("not_a_tiff.tif", NotATiffError, "starts with b'hell'"),
        ("truncated_tail.tif", IncompleteFileError, "ends at 16548"),
        ("empty.tif", IncompleteFileError, "only 0 bytes"),
        ("unfinished_no_ifd.tif", IncompleteFileError, "ends at 16392"),
    ],
)
def test_a_bad_source_is_refused_and_leaves_nothing(
    put: Put, tmp_path: Path, name: str, error: type[ConversionError], words: str
) -> None:
    source = put(name)
    before = source.read_bytes()
    for recipe in (XDI, IN_PLACE):
        with pytest.raises(error, match=words) as caught:
            convert_file(source, recipe)
        assert str(source) in str(caught.value)
    assert source.read_bytes() == before
    assert [path.name for path in tmp_path.rglob("*.tif*")] == [name]


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceMissingError, match=r"none\.tif: no such file"):
        convert_file(tmp_path / "raw" / "none.tif", XDI)


GREY, PALETTE = np.zeros((8, 8), np.uint8), {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)}


@pytest.mark.parametrize(
    ("image", "options", "words"),
    [
        (np.zeros((8, 8, 3), np.uint8), {"photometric": "rgb"}, "an RGB image"),
        (GREY, {"photometric": "miniswhite"}, "zero is white"),
        (GREY.astype(np.complex64), {}, "64 bits in sample format 6"),
        (GREY.astype(bool), {}, "a bilevel image"),
        (GREY, {"extratags": [(274, 3, 1, 9, True)]}, "orientation tag of 9"),
        (GREY, PALETTE, "a palette"),
    ],
    ids=["rgb", "white", "complex", "bilevel", "orientation", "palette"],
)
def test_images_without_one_right_conversion_are_refused(
    tmp_path: Path, image: np.ndarray[Any, Any], options: dict[str, Any], words: str
) -> None:
    path = tmp_path / "raw" / "other.tif"
    path.parent.mkdir()
    tifffile.imwrite(path, image, metadata=None, **options)
    with pytest.raises(UnsupportedImageError, match=words):
        convert_file(path, XDI)


def test_an_earlier_output_is_replaced_and_a_foreign_file_is_not(source: Path, output: Path) -> None:
    convert_file(source, Recipe.preset("xdi"))
    convert_file(source, XDI)
    np.testing.assert_array_equal(both_readers(output), np.flip(np.rot90(tifffile.imread(source)), 1).astype("i4"))
    output.write_bytes(b"somebody's own")
    with pytest.raises(OutputExistsError, match="not written by this program"):
        convert_file(source, XDI)
    assert output.read_bytes() == b"somebody's own"


@pytest.mark.parametrize("job", [None, "4f3c"])
def test_what_exists_is_refused_skipped_or_numbered_on_request(source: Path, output: Path, job: str | None) -> None:
    """An output that names no job has no known owner: an earlier version made it, or no server did."""
    convert_file(source, XDI)
    first = output.read_bytes()
    assert b'"job"' not in first
    with pytest.raises(OutputExistsError, match=re.escape(str(output))):
        convert_file(source, on_existing("refuse"), job=job)
    assert convert_file(source, on_existing("skip"), job=job).outcome == "skipped"
    assert convert_file(source, on_existing("number"), job=job).output == str(output.with_stem("qxrd_f32_64-00001"))
    assert convert_file(source, on_existing("number")).output == str(output.with_stem("qxrd_f32_64-00002"))
    assert output.read_bytes() == first


def test_in_place_turns_a_frame_once(source: Path, tmp_path: Path) -> None:
    source.chmod(0o640)
    mode = source.stat().st_mode
    raw = tifffile.imread(source)
    recipe = XDI.model_copy(update={"output": IN_PLACE.output})
    assert convert_file(source, recipe).outcome == "converted"
    converted = source.read_bytes()
    np.testing.assert_array_equal(both_readers(source), np.flip(np.rot90(raw), 1).astype("i4"))
    assert source.stat().st_mode == mode
    again = convert_file(source, recipe)
    assert (again.outcome, source.read_bytes()) == ("skipped", converted)
    assert "already converted" in again.reason
    with pytest.raises(ConvertedDifferentlyError, match=r"already converted from .*force"):
        convert_file(source, IN_PLACE)
    assert source.read_bytes() == converted
    assert [path.name for path in tmp_path.rglob("*")] == ["raw", source.name]


def test_an_output_folder_must_not_be_the_source_s(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere" / "deep"
    assert convert_file(source, on_existing("replace_own", folder=str(folder))).output == str(folder / source.name)
    with pytest.raises(NoOutputPathError, match="source itself"):
        convert_file(source, on_existing("replace_own", folder=str(source.parent)))


def test_paths_beyond_the_roots_are_refused(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(OutsideRootsError, match="may be read"):
        convert_file(source, XDI, roots=Roots.of([other]))
    if sys.platform != "win32":
        link = other / "link.tif"
        link.symlink_to(source)
        with pytest.raises(OutsideRootsError, match="may be read"):
            convert_file(link, XDI, roots=Roots.of([other]))
    with pytest.raises(OutsideRootsError, match="may be written"):
        convert_file(source, on_existing("replace_own", folder=str(other)), roots=Roots.of([tmp_path / "raw"]))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="for root and for Windows no folder is read-only")
def test_a_read_only_folder_refuses_the_output(source: Path, output: Path) -> None:
    output.parent.mkdir(mode=0o500)
    with pytest.raises(OutputWriteError, match="cannot write"):
        convert_file(source, XDI)
    assert not list(output.parent.iterdir())


def test_a_file_in_the_way_of_the_output_folder_is_named(source: Path, output: Path) -> None:
    output.parent.write_bytes(b"a file")
    with pytest.raises(OutputWriteError, match="processed"):
        convert_file(source, XDI)
    assert output.parent.read_bytes() == b"a file"


def test_an_output_is_no_source_unless_that_is_said(source: Path, output: Path, tmp_path: Path) -> None:
    convert_file(source, XDI)
    again = {"folder": str(tmp_path / "again")}
    with pytest.raises(ConvertedDifferentlyError, match="already converted"):
        convert_file(output, Recipe.preset("xdi", output=again))
    forced = convert_file(output, Recipe.preset("xdi", rotation=180, output={**again, "force": True}))
    np.testing.assert_array_equal(both_readers(Path(forced.output or "")), np.rot90(tifffile.imread(output), 2))


def kept_outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("choice", ["number", "refuse", "skip", "replace_own"])
def test_a_repeated_attempt_of_a_job_makes_no_second_output(source: Path, output: Path, choice: str) -> None:
    """As if the report of the first attempt had been lost."""
    output.parent.mkdir()
    if choice == "number":
        output.write_bytes(b"somebody's own")
    first = convert_file(source, on_existing(choice), job="4f3c")
    source.with_name(source.name + ".metadata").write_text("[metadata]\nwidth=64\n")
    again = convert_file(source, on_existing(choice), job="4f3c")
    assert (again.outcome, again.output, again.sidecar) == ("converted", first.output, "carried")
    assert len(list(output.parent.glob("*.tif"))) == (2 if choice == "number" else 1)


def test_a_second_conversion_never_replaces_the_first_one_s_file(source: Path, output: Path) -> None:
    outputs = {job: convert_file(source, on_existing("number"), job=job).output for job in ("one", "two", "three")}
    assert len(set(outputs.values())) == 3
    before = kept_outputs(output.parent)
    for job in ("three", "one", "two"):
        assert convert_file(source, on_existing("number"), job=job).output == outputs[job]
    assert kept_outputs(output.parent) == before
    with pytest.raises(OutputExistsError):
        convert_file(source, on_existing("refuse"), job="four")
    assert convert_file(source, on_existing("skip"), job="four").outcome == "skipped"
    assert kept_outputs(output.parent) == before


def test_an_output_of_the_job_from_another_source_is_not_ours(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "raw" / source.name
    other.parent.mkdir(parents=True)
    shutil.copy(source, other)
    recipe = on_existing("skip", folder=str(tmp_path / "all"))
    convert_file(source, recipe, job="4f3c")
    assert convert_file(other, recipe, job="4f3c").outcome == "skipped"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are listed on Linux only")
def test_the_source_is_closed_before_it_is_replaced(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = source.stat()
    real = os.replace
    seen = []

    def replace(*names: str, **folders: int) -> None:
        seen.append([entry for entry in Path("/proc/self/fd").iterdir() if entry.exists() and entry.samefile(source)])
        real(*names, **folders)

    monkeypatch.setattr(os, "replace", replace)
    convert_file(source, IN_PLACE)
    assert seen == [[]], "Windows refuses to rename over an open file"
    assert source.stat().st_ino != status.st_ino


def test_a_sidecar_that_cannot_follow_is_no_failure(source: Path, output: Path) -> None:
    report = convert_file(source, XDI)
    assert (report.outcome, report.sidecar, report.reason) == ("converted", "absent", ""), "without a sidecar"
    source.with_name(source.name + ".metadata").write_text("[metadata]\nwidth=64\n")
    output.with_name(f"{source.name}.metadata").mkdir(parents=True)
    report = convert_file(source, XDI)
    assert (report.outcome, report.sidecar) == ("converted", "absent")
    assert report.reason.startswith("the sidecar could not be copied: ")
    assert f"{source.name}.metadata" in report.reason


def test_a_file_made_by_an_earlier_version_is_still_known(source: Path) -> None:
    convert_file(source, IN_PLACE)
    content = source.read_bytes()
    start = content.index(b'"compression":"none"')
    earlier = content[: start - 1] + content[start + len(b'"compression":"none"') :]
    padding = len(content) - len(earlier)
    end = earlier.index(b"\0", start)
    source.write_bytes(earlier[:end] + b"\0" * padding + earlier[end:])
    assert convert_file(source, IN_PLACE).outcome == "skipped"
