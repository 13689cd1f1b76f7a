"""Placeholders: zeros that say what they are, replace no frame, and give way to the frame once it comes."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import fabio
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from tango_server.commands.inspect import inspect
from tango_server.conversion import convert_file
from tango_server.conversion.errors import (
    ConvertedDifferentlyError,
    OutputExistsError,
    OutputWriteError,
    OutsideRootsError,
    PlaceholderInPlaceError,
    UnsupportedImageError,
)
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.naming import stand_in_name
from tango_server.conversion.files.roots import ANYWHERE, Roots
from tango_server.conversion.inspection import inspect_file
from tango_server.conversion.placeholder import make_placeholder
from tango_server.conversion.records import is_placeholder_of
from tango_server.conversion.tiff.parser import read_structure
from tango_server.conversion.tiff.record import read_provenance
from tango_server.conversion.tiff.writer import image_writer
from tango_server.jobs.planning import plan
from tango_server.messages import FrameReport
from tango_server.recipe import PRESETS, Recipe

XDI = Recipe.preset("xdi", rotation=90, flip="1")
IN_PLACE = Recipe.preset("xdi", output={"mode": "in_place"})
REASON = "not complete within 15 s: no such file. Check whether the detector wrote it, then try it again."
SHAPE = (40, 64)
GEOMETRY = {"wavelength": 0.29, "distance": 300.0, "pixel_size": 0.2, "beam_center": [20.0, 32.0], "exposure": 1.0}
CRYSTAL: dict[str, Any] = {"esperanto": {"omega": 0.0, **GEOMETRY}}
EVERY_MODE = ("replace_own", "skip", "refuse", "number")
Make = Callable[..., FrameReport]
Come = Callable[..., Path]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The frame that has not come."""
    return tmp_path / "raw" / "a.tif"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "processed" / "a.tif"


@pytest.fixture
def make(source: Path, output: Path) -> Make:
    def make_one(recipe: Recipe = XDI, shape: tuple[int, int] = SHAPE, **changes: Any) -> FrameReport:
        options: dict[str, Any] = {"output": output, "roots": ANYWHERE, "reason": REASON, "token": "test", **changes}
        return make_placeholder(FrameLocation(options.pop("source", source)), recipe, shape, **options)

    return make_one


@pytest.fixture
def come(data: Path, source: Path) -> Come:
    def put(path: Path = source) -> Path:
        path.parent.mkdir(exist_ok=True, parents=True)
        return Path(shutil.copy(data / "qxrd_f32_64.tif", path))

    return put


def existing(choice: str, **fields: Any) -> Recipe:
    return Recipe.preset("xdi", rotation=90, flip="1", output={"on_existing": choice, **fields})


def says_placeholder(path: Path) -> bool:
    provenance = read_provenance(read_structure(path))
    assert provenance is not None
    return provenance.placeholder


def is_the_frame(path: Path, data: Path) -> bool:
    expected = np.flip(np.rot90(tifffile.imread(data / "qxrd_f32_64.tif")), 1).astype("i4")
    return bool(np.array_equal(tifffile.imread(path), expected)) and not says_placeholder(path)


@pytest.mark.parametrize("pixel_type", ["uint8", "int16", "int32", "uint32", "float32", "float64", None])
def test_it_is_all_zeros_in_shape_and_type_of_the_output(make: Make, output: Path, pixel_type: str | None) -> None:
    for rotation in (0, 90, 180, 270):
        case = f"rotated by {rotation}"
        report = make(Recipe.model_validate({"rotation": rotation, "pixel_type": pixel_type, "invalid_value": 7}))
        expected = np.rot90(np.zeros(SHAPE, pixel_type or "float32"), rotation // 90)
        with fabio.open(str(output)) as by_fabio:
            np.testing.assert_array_equal(by_fabio.data, expected, strict=True, err_msg=case)
        np.testing.assert_array_equal(tifffile.imread(output), expected, strict=True, err_msg=case)
        assert (report.shape, report.pixel_type) == (expected.shape, expected.dtype.name), case


@pytest.mark.parametrize("compression", ["none", "deflate", "lzw", "zstd"])
def test_it_is_written_as_the_frame_would_have_been(
    make: Make, come: Come, source: Path, tmp_path: Path, compression: str
) -> None:
    recipe = Recipe.preset("xdi", compression=compression)
    placeholder = Path(make(recipe, (64, 64)).output or "")
    frame = Path(convert_file(come(tmp_path / "raw" / "b.tif"), recipe).output or "")
    with tifffile.TiffFile(placeholder) as ours, tifffile.TiffFile(frame) as model:
        assert not ours.asarray().any()
        assert [(tag.code, tag.dtype) for tag in ours.pages[0].tags] == [
            (tag.code, tag.dtype) for tag in model.pages[0].tags
        ]
        assert ours.pages[0].compression == model.pages[0].compression
        assert ours.pages[0].shape == model.pages[0].shape


def test_file_and_report_say_what_it_is_and_why(make: Make, source: Path, output: Path) -> None:
    source.parent.mkdir()
    source.with_name("a.tif.metadata").write_text("[metadata]\nwidth=64\n")
    before = datetime.now().replace(microsecond=0)
    report = make(job="4f3c")
    with tifffile.TiffFile(output) as tiff:
        texts = {tag.name: tag.value for tag in tiff.pages[0].tags if tag.dtype == 2}
    record = json.loads(texts["ImageDescription"])
    assert (record["placeholder"], record["source"], record["recipe"]["rotation"]) == (True, "a.tif", 90)
    made = datetime.strptime(texts["DateTime"], "%Y:%m:%d %H:%M:%S")
    assert before <= made <= before + timedelta(seconds=60)
    assert is_placeholder_of(FrameLocation(source), output)
    provenance = read_provenance(read_structure(output))
    assert provenance is not None
    assert provenance.job == "4f3c"
    assert (report.outcome, report.reason) == ("placeholder", REASON)
    assert (report.source, report.output, report.sidecar) == (str(source), str(output), "absent")
    assert (report.bytes_out, report.recipe_hash) == (output.stat().st_size, XDI.hash)
    assert report.conversion_time > 0
    assert [path.name for path in output.parent.iterdir()] == ["a.tif"], "no sidecar and nothing else appears"
    assert [path.name for path in source.parent.iterdir()] == ["a.tif.metadata"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permission bits")
def test_modes_of_files_and_folders_are_the_recipes(make: Make, output: Path) -> None:
    make(existing("replace_own", file_mode="0640", folder_mode="0750"))
    assert output.stat().st_mode & 0o777 == 0o640
    assert output.parent.stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("shape", [(0, 64), (64, -1), (65_537, 1)])
def test_the_shape_of_no_frame_is_refused(make: Make, output: Path, shape: tuple[int, int]) -> None:
    with pytest.raises(UnsupportedImageError, match="placeholder_shape") as caught:
        make(shape=shape)
    assert REASON in str(caught.value)
    assert not output.parent.exists()


def test_it_is_never_made_where_the_detector_writes(make: Make, source: Path, tmp_path: Path) -> None:
    source.parent.mkdir()
    places = [(IN_PLACE, source), (XDI, source)]
    if sys.platform != "win32":
        (tmp_path / "elsewhere").symlink_to(source.parent)
        places.append((XDI, tmp_path / "elsewhere" / source.name))
    for recipe, place in places:
        with pytest.raises(PlaceholderInPlaceError, match="in place") as caught:
            make(recipe, output=place)
        assert REASON in str(caught.value), place
    assert not list(source.parent.iterdir())


def test_paths_beyond_the_roots_are_refused(make: Make, source: Path, output: Path, tmp_path: Path) -> None:
    with pytest.raises(OutsideRootsError, match="may be read or written"):
        make(roots=Roots.of([source.parent], [tmp_path / "out"]))
    assert not output.exists()


def test_folder_creation_failure_is_reported_and_leaves_nothing(make: Make, output: Path) -> None:
    output.parent.write_bytes(b"a file")
    with pytest.raises(OutputWriteError, match="cannot write"):
        make()
    assert output.parent.read_bytes() == b"a file"


@pytest.mark.parametrize("kind", ["conversion", "foreign", "no TIFF", "folder", "placeholder of another source"])
def test_what_is_there_already_is_never_replaced(
    make: Make, come: Come, output: Path, tmp_path: Path, kind: str
) -> None:
    output.parent.mkdir()
    if kind == "conversion":
        convert_file(come(), XDI)
    elif kind == "foreign":
        come(output)
    elif kind == "no TIFF":
        output.write_bytes(b"somebody's own")
    elif kind == "folder":
        output.mkdir()
    else:
        make(source=tmp_path / "other" / "a.tif")
    before = output.read_bytes() if output.is_file() else None
    for choice in EVERY_MODE:
        with pytest.raises(OutputExistsError, match="already") as caught:
            make(existing(choice))
        assert REASON in str(caught.value), choice
        assert str(output) in str(caught.value), choice
        assert (output.read_bytes() if output.is_file() else None) == before, choice
        assert list(output.parent.iterdir()) == [output], choice


def test_an_earlier_placeholder_of_the_same_source_is_made_anew(make: Make, output: Path) -> None:
    for choice in EVERY_MODE:
        make(Recipe.preset("xdi"))
        assert make(existing(choice)).outcome == "placeholder", choice
        np.testing.assert_array_equal(tifffile.imread(output), np.zeros(SHAPE[::-1], "i4"), strict=True, err_msg=choice)
        assert list(output.parent.iterdir()) == [output], choice


@pytest.mark.parametrize("choice", EVERY_MODE)
@pytest.mark.parametrize("job", [None, "4f3c"])
def test_the_frame_replaces_its_placeholder_when_it_comes(
    make: Make, come: Come, output: Path, data: Path, choice: str, job: str | None
) -> None:
    make(existing(choice))
    report = convert_file(come(), existing(choice), job=job)
    assert (report.outcome, report.output) == ("converted", str(output))
    assert is_the_frame(output, data)
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.parametrize("choice", EVERY_MODE)
def test_a_placeholder_of_another_source_is_not_replaced(
    make: Make, come: Come, output: Path, tmp_path: Path, data: Path, choice: str
) -> None:
    make(source=tmp_path / "other" / "a.tif")
    before = output.read_bytes()
    come()
    if choice in {"replace_own", "refuse"}:
        with pytest.raises(OutputExistsError, match=str(output)):
            convert_file(tmp_path / "raw" / "a.tif", existing(choice))
    else:
        report = convert_file(tmp_path / "raw" / "a.tif", existing(choice))
        assert report.outcome == {"skip": "skipped", "number": "converted"}[choice]
    assert output.read_bytes() == before
    if choice == "number":
        assert is_the_frame(output.with_name("a-00001.tif"), data)


@pytest.mark.parametrize("choice", EVERY_MODE)
def test_a_frame_replaces_the_placeholder_of_its_point(
    make: Make, come: Come, output: Path, tmp_path: Path, data: Path, choice: str
) -> None:
    """When that was made, no frame had come, and its name was unknown."""
    make(source=tmp_path / "raw" / stand_in_name("a", 17))
    report = convert_file(come(), existing(choice))
    assert (report.outcome, report.output) == ("converted", str(output))
    assert is_the_frame(output, data)


@pytest.mark.parametrize("earlier", [False, True])
def test_a_frame_that_comes_while_zeros_are_written_stays(
    make: Make, come: Come, output: Path, data: Path, monkeypatch: pytest.MonkeyPatch, *, earlier: bool
) -> None:
    if earlier:
        make()

    def and_then_it_comes(*arguments: Any) -> Callable[[BinaryIO], None]:
        write = image_writer(*arguments)

        def write_it(file: BinaryIO) -> None:
            write(file)
            convert_file(come(), XDI)

        return write_it

    monkeypatch.setattr("tango_server.conversion.placeholder.image_writer", and_then_it_comes)
    with pytest.raises(OutputExistsError, match="exists"):
        make()
    assert is_the_frame(output, data)
    assert list(output.parent.iterdir()) == [output]


@pytest.fixture
def placeholder(make: Make) -> Iterator[Path]:
    path = Path(make().output or "")
    before = path.read_bytes()
    yield path
    assert path.read_bytes() == before


@pytest.mark.parametrize("recipe", [XDI, Recipe.preset("xdi-unsigned")], ids=["same", "other"])
def test_a_placeholder_is_no_source(placeholder: Path, recipe: Recipe, tmp_path: Path) -> None:
    elsewhere = recipe.model_copy(update={"output": recipe.output.model_copy(update={"folder": str(tmp_path / "b")})})
    for chosen in (elsewhere, recipe.model_copy(update={"output": IN_PLACE.output}), IN_PLACE):
        with pytest.raises(ConvertedDifferentlyError, match=r"a placeholder for the missing frame a\.tif"):
            convert_file(placeholder, chosen)
    assert not (tmp_path / "b").exists()


def test_what_is_made_of_a_placeholder_by_force_is_one_too(placeholder: Path, tmp_path: Path) -> None:
    recipe = existing("replace_own", folder=str(tmp_path / "b"), force=True)
    report = convert_file(placeholder, recipe)
    assert report.outcome == "converted"
    assert not tifffile.imread(tmp_path / "b" / "a.tif").any()
    assert says_placeholder(tmp_path / "b" / "a.tif")


def test_a_placeholder_is_no_newer_output(placeholder: Path, come: Come) -> None:
    """A frame that was copied with its old modification time is older than its placeholder."""
    frame = come()
    os.utime(frame, (1e9, 1e9))
    (planned,) = plan([frame], Recipe.preset("xdi", output={"folder": str(placeholder.parent)}), newer_only=True)
    assert (planned.output, planned.skip) == (placeholder, "")


def test_inspection_shows_it_and_calls_no_frame_so(make: Make, come: Come) -> None:
    for preset in PRESETS:
        path = Path(make(Recipe.preset(preset, **(CRYSTAL if preset == "esperanto" else {}))).output or "")
        found = inspect_file(path)
        assert (found["state"], found["provenance"]["placeholder"]) == ("complete", True), preset
        result = CliRunner().invoke(inspect, [str(path)])
        assert result.exit_code == 0, preset
        assert "PLACEHOLDER all zeros: a.tif" in result.stdout, preset
        path.unlink()
    frame = convert_file(come(), XDI).output or ""
    assert inspect_file(Path(frame))["provenance"]["placeholder"] is False
    assert "PLACEHOLDER" not in CliRunner().invoke(inspect, [frame]).stdout
