"""Placeholders: zeros that say what they are, replace no frame, and give way to the frame once it comes."""

import json
import os
import shutil
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
    ConversionError,
    ConvertedDifferentlyError,
    OutputExistsError,
    OutputWriteError,
    OutsideRootsError,
    PlaceholderInPlaceError,
    UnsupportedImageError,
)
from tango_server.conversion.paths import ANYWHERE, Roots
from tango_server.conversion.placeholder import make_placeholder
from tango_server.conversion.provenance import read_provenance
from tango_server.conversion.records import is_placeholder_of
from tango_server.conversion.structure import read_structure
from tango_server.conversion.writing import image_writer
from tango_server.inspection import inspect_file
from tango_server.messages import FrameReport
from tango_server.offline import plan
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
        return make_placeholder(options.pop("source", source), recipe, shape, **options)

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


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("pixel_type", ["uint8", "int16", "int32", "uint32", "float32", "float64", None])
def test_it_is_all_zeros_in_the_shape_and_type_of_the_output(
    make: Make, output: Path, rotation: int, pixel_type: str | None
) -> None:
    report = make(Recipe.model_validate({"rotation": rotation, "pixel_type": pixel_type, "invalid_value": 7}))
    expected = np.rot90(np.zeros(SHAPE, pixel_type or "float32"), rotation // 90)
    with fabio.open(str(output)) as by_fabio:
        np.testing.assert_array_equal(by_fabio.data, expected, strict=True)
    np.testing.assert_array_equal(tifffile.imread(output), expected, strict=True)
    assert (report.shape, report.pixel_type) == (expected.shape, expected.dtype.name)


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


def test_it_says_of_itself_what_it_is_and_when_it_was_made(make: Make, source: Path, output: Path) -> None:
    before = datetime.now().replace(microsecond=0)
    make()
    with tifffile.TiffFile(output) as tiff:
        texts = {tag.name: tag.value for tag in tiff.pages[0].tags if tag.dtype == 2}
    record = json.loads(texts["ImageDescription"])
    assert record["placeholder"] is True
    assert record["source"] == "a.tif"
    assert record["recipe"]["rotation"] == 90
    made = datetime.strptime(texts["DateTime"], "%Y:%m:%d %H:%M:%S")
    assert before <= made <= before + timedelta(seconds=60)
    assert is_placeholder_of(source, output)


def test_the_report_tells_why(make: Make, source: Path, output: Path) -> None:
    report = make()
    assert (report.outcome, report.reason, report.source, report.output) == (
        "placeholder",
        REASON,
        str(source),
        str(output),
    )
    assert report.bytes_out == output.stat().st_size
    assert report.recipe_hash == XDI.hash
    assert report.sidecar == "absent"
    assert report.conversion_time > 0


def test_no_sidecar_and_nothing_else_appears(make: Make, come: Come, source: Path, output: Path) -> None:
    source.parent.mkdir()
    source.with_name("a.tif.metadata").write_text("[metadata]\nwidth=64\n")
    make()
    assert [path.name for path in output.parent.iterdir()] == ["a.tif"]
    assert [path.name for path in source.parent.iterdir()] == ["a.tif.metadata"]


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


def test_it_is_never_made_where_the_detector_writes(make: Make, source: Path) -> None:
    source.parent.mkdir()
    for recipe, place in ((IN_PLACE, source), (XDI, source)):
        with pytest.raises(PlaceholderInPlaceError, match="where the detector writes") as caught:
            make(recipe, output=place)
        assert REASON in str(caught.value)
    assert not list(source.parent.iterdir())


def test_a_link_to_where_the_detector_writes_is_seen_through(make: Make, source: Path, tmp_path: Path) -> None:
    source.parent.mkdir()
    (tmp_path / "elsewhere").symlink_to(source.parent)
    with pytest.raises(PlaceholderInPlaceError):
        make(output=tmp_path / "elsewhere" / source.name)
    assert not list(source.parent.iterdir())


def test_paths_beyond_the_roots_are_refused(make: Make, source: Path, output: Path, tmp_path: Path) -> None:
    with pytest.raises(OutsideRootsError, match="may be read or written"):
        make(roots=Roots.of([source.parent], [tmp_path / "out"]))
    assert not output.exists()


def test_a_folder_that_cannot_be_made_is_told_and_leaves_nothing(make: Make, output: Path) -> None:
    output.parent.write_bytes(b"a file")
    with pytest.raises(OutputWriteError, match="can't be written"):
        make()
    assert output.parent.read_bytes() == b"a file"


@pytest.mark.parametrize("choice", EVERY_MODE)
@pytest.mark.parametrize("kind", ["conversion", "foreign", "no TIFF", "folder", "placeholder of another source"])
def test_what_is_there_already_is_never_replaced(
    make: Make, come: Come, output: Path, tmp_path: Path, choice: str, kind: str
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
    with pytest.raises(OutputExistsError, match="already") as caught:
        make(existing(choice))
    assert REASON in str(caught.value)
    assert str(output) in str(caught.value)
    assert (output.read_bytes() if output.is_file() else None) == before
    assert list(output.parent.iterdir()) == [output]


def test_it_tells_the_job_that_made_it(make: Make, output: Path) -> None:
    make(job="4f3c")
    provenance = read_provenance(read_structure(output))
    assert provenance is not None
    assert provenance.job == "4f3c"


@pytest.mark.parametrize("choice", EVERY_MODE)
def test_an_earlier_placeholder_of_the_same_source_is_made_anew(make: Make, output: Path, choice: str) -> None:
    make(Recipe.preset("xdi"))
    report = make(existing(choice))
    assert report.outcome == "placeholder"
    np.testing.assert_array_equal(tifffile.imread(output), np.zeros(SHAPE[::-1], "i4"), strict=True)
    assert list(output.parent.iterdir()) == [output]


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
def test_a_placeholder_of_another_source_of_the_same_name_is_not_replaced(
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
    with pytest.raises(OutputExistsError, match="already"):
        make()
    assert is_the_frame(output, data)
    assert list(output.parent.iterdir()) == [output]


@pytest.fixture
def placeholder(make: Make) -> Iterator[Path]:
    path = Path(make().output or "")
    before = path.read_bytes()
    yield path
    assert path.read_bytes() == before


@pytest.mark.parametrize("recipe", [XDI, Recipe.preset("xdi-unsigned"), IN_PLACE], ids=["same", "other", "in place"])
def test_a_placeholder_is_no_source(placeholder: Path, recipe: Recipe, tmp_path: Path) -> None:
    if recipe != IN_PLACE:
        recipe = recipe.model_copy(update={"output": recipe.output.model_copy(update={"folder": str(tmp_path / "b")})})
    with pytest.raises(ConvertedDifferentlyError, match=r"a placeholder for a\.tif, a frame that never came"):
        convert_file(placeholder, recipe)
    assert not (tmp_path / "b").exists()


def test_a_placeholder_is_not_converted_in_place_by_its_own_recipe(placeholder: Path) -> None:
    with pytest.raises(ConversionError, match=r"a placeholder for a\.tif"):
        convert_file(placeholder, XDI.model_copy(update={"output": IN_PLACE.output}))


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


@pytest.mark.parametrize("preset", PRESETS)
def test_inspection_shows_it(make: Make, preset: str) -> None:
    path = Path(make(Recipe.preset(preset, **(CRYSTAL if preset == "esperanto" else {}))).output or "")
    found = inspect_file(path)
    assert found["state"] == "complete"
    assert found["provenance"]["placeholder"] is True
    result = CliRunner().invoke(inspect, [str(path)])
    assert result.exit_code == 0
    assert "PLACEHOLDER all zeros: a.tif had not come when this file was made" in result.stdout


def test_inspection_calls_no_frame_a_placeholder(come: Come) -> None:
    path = convert_file(come(), XDI).output or ""
    assert inspect_file(Path(path))["provenance"]["placeholder"] is False
    assert "PLACEHOLDER" not in CliRunner().invoke(inspect, [path]).stdout
