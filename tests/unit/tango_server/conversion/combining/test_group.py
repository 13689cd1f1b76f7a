"""Groups of files: what becomes of them, how it is named and described, and what is refused."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from numpy.typing import NDArray

from tango_server.commands.inspect import inspect
from tango_server.conversion import convert_file
from tango_server.conversion.combining.combine import Combination, CombinedImage, Frames
from tango_server.conversion.combining.group import Member, convert_group
from tango_server.conversion.corrections.frame import correction_of
from tango_server.conversion.errors import (
    ConvertedDifferentlyError,
    GroupIncompleteError,
    GroupUnfitError,
    NameTemplateError,
    OutputExistsError,
    OutputWriteError,
    UnsupportedImageError,
)
from tango_server.conversion.esperanto.reading import read_esperanto, read_header
from tango_server.conversion.esperanto.record import provenance_in
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.roots import Roots
from tango_server.conversion.formats import open_frame
from tango_server.conversion.image.orientation import AS_STORED
from tango_server.conversion.image.own_mask import OwnMask
from tango_server.conversion.image.transform import Turning
from tango_server.conversion.inspection import inspect_file
from tango_server.conversion.provenance import describe, provenance_in_description
from tango_server.conversion.sidecar import read_sidecar, sidecar_path
from tango_server.messages import GroupReport, ReportsAnswer
from tango_server.recipe import Recipe
from tests.unit.exposures import write_exposure
from tests.unit.full_disk import no_file_grows_beyond

Image = NDArray[Any]
SHAPE = (6, 8)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


def frames(folder: Path, images: Sequence[Image], name: str = "a", **exposure: Any) -> list[Path]:
    return [
        write_exposure(folder / f"{name}-{number:05d}.tif", image, **{"data_type": None, **exposure})
        for number, image in enumerate(images, 1)
    ]


def some(count: int = 4, kind: str = "uint16") -> list[Image]:
    return [np.random.default_rng(number).integers(0, 1000, SHAPE).astype(kind) for number in range(count)]


def recipe(method: str = "sum", *, on_incomplete: str = "fail", sigma: float = 3.0, **changes: Any) -> Recipe:
    combine = {"of": "run", "method": method, "on_incomplete": on_incomplete, "sigma": sigma}
    return Recipe.model_validate({"combine": combine, **changes})


def members(paths: Sequence[Path], **fields: Any) -> list[Member]:
    return [Member(FrameLocation(path), fields) for path in paths]


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def beside(name: str) -> list[str]:
    """The output of a group, its list and its sidecar."""
    return [name, f"{name}.members.csv", f"{name}.metadata"]


def image_of(report: GroupReport) -> Image:
    assert report.output is not None
    image: Image = tifffile.imread(report.output)
    assert image.dtype == report.pixel_type
    return image


def test_ten_int16_frames_of_20000_sum_to_200000(raw: Path, tmp_path: Path) -> None:
    paths = []
    for number in range(10):
        paths.append(raw / f"{number}.tif")
        tifffile.imwrite(paths[-1], np.full(SHAPE, 20_000, np.int16))
    report = convert_group(members(paths), recipe())
    assert (image_of(report) == 200_000).all()
    assert report.outcome == "converted"
    assert report.output == str(tmp_path / "processed" / "0.tif")
    assert [member.outcome for member in report.members] == ["grouped"] * 10
    assert report.bytes_in == sum(path.stat().st_size for path in paths)
    assert report.pixels.maximum == 200_000


@pytest.mark.parametrize("method", ["sum", "mean", "median", "max", "min", "sigma_clip"])
def test_members_are_corrected_combined_turned_and_cast_once(raw: Path, method: str) -> None:
    images, mask = some(5), np.zeros(SHAPE, np.uint8)
    mask[2, 3] = 1
    dark = np.full(SHAPE, 100.25, np.float32)
    np.save(raw / "dark.npy", dark)
    np.save(raw / "mask.npy", mask)
    corrections = {"dark": str(raw / "dark.npy"), "mask": str(raw / "mask.npy")}
    made = recipe(method, rotation=90, flip="1", pixel_type="int32", invalid_value=-5, corrections=corrections)
    report = convert_group(members(frames(raw, images)), made)
    values = np.stack(images).astype(np.float64) - dark
    functions: dict[str, Any] = {"sigma_clip": np.mean}  # five values cannot deviate that much
    expected = functions.get(method, getattr(np, method, None))(values, axis=0).astype(np.int32)
    expected[2, 3] = -5
    np.testing.assert_array_equal(image_of(report), np.flip(np.rot90(expected), 1))
    assert report.pixels.masked == 1
    assert report.pixels.negative == 0
    assert [master.kind for master in report.masters] == ["dark", "mask"]
    found = inspect_file(Path(report.output or ""))["provenance"]
    assert (found["masked"], len(found["masters"])) == (1, 2)


@pytest.mark.parametrize("kind", ["uint16", "uint32", "float32"])
@pytest.mark.parametrize("method", ["sum", "mean", "median"])
def test_corrected_values_are_rounded_once_at_the_end(raw: Path, kind: str, method: str) -> None:
    rng = np.random.default_rng(8)
    dark, flat = (rng.uniform(0.7, 1.3, SHAPE).astype(np.float32) for _ in range(2))
    np.save(raw / "dark.npy", dark)
    np.save(raw / "flat.npy", flat)
    corrections = {"dark": str(raw / "dark.npy"), "flat": str(raw / "flat.npy"), "force": True}
    images = some(4, kind)
    report = convert_group(members(frames(raw, images)), recipe(method, corrections=corrections, pixel_type="float64"))
    values = (np.stack(images).astype(np.float64) - dark) / flat
    np.testing.assert_array_max_ulp(image_of(report), getattr(np, method)(values, axis=0), 1)


def test_pixel_masked_in_one_member_is_masked_in_the_sum(raw: Path) -> None:
    images = some(3, "int32")
    images[1][2, 3] = -1
    paths = [raw / f"{number}.tif" for number in range(3)]
    for path, image in zip(paths, images, strict=True):
        tifffile.imwrite(path, image)
    own = OwnMask(negatives=True, always=False)  # as of a Dectris TIFF or CBF: only with corrections or combine
    made = recipe()

    def read(_: int) -> Iterator[list[Turning]]:
        for path in paths:
            with open_frame(FrameLocation(path)) as opened:
                source = replace(opened, own_mask=own)
                correction = correction_of(source, source.images[0], made, None)
                for image in source.read():
                    yield [Turning(image, made, correction=correction)]

    combined = Frames(3, SHAPE, np.dtype("int32"), read)
    output = CombinedImage(Combination("sum"), combined, AS_STORED, made, np.dtype("float64"))
    result = output.whole()
    assert np.argwhere(np.isnan(result)).tolist() == [[2, 3]]
    assert output.counts().masked == 1
    expected = np.sum(images, axis=0)
    np.testing.assert_array_equal(np.delete(result, 2 * 8 + 3), np.delete(expected, 2 * 8 + 3))


def test_full_counter_beside_a_pixel_mask_is_overexposed_and_masked(raw: Path) -> None:
    image = some(1)[0]
    image[0, 0], image[0, 1] = 65535, 65535
    mask = np.zeros(SHAPE, bool)
    mask[0, 1] = True
    (path,) = frames(raw, [image])
    with open_frame(FrameLocation(path)) as opened:
        source = replace(opened, own_mask=OwnMask("m", mask), header=replace(opened.header, saturation=60000))
        correction = correction_of(source, source.images[0], recipe(), None)
        assert correction is not None
        over = np.zeros(SHAPE, bool)
        turning = Turning(next(source.read()), recipe(), correction=correction, overexposed=over)
        ((_, _, masked),) = turning.corrected(slice(0, 6))
    assert masked.tolist() == [0, 1]
    assert np.flatnonzero(over).tolist() == [0]


def test_same_members_give_the_same_bytes_in_any_bands(raw: Path, tmp_path: Path) -> None:
    images = [image.astype(np.float32) / 7 for image in some(6)]
    images[2][1, 1] = np.nan
    paths = frames(raw, images)
    for method in ("median", "sigma_clip"):
        made = recipe(method, pixel_type="float64", sigma=1.2, rotation=90)
        contents = set()
        for band_bytes in (1, 6 * 6 * 4 * 3, 2**20):
            report = convert_group(members(paths), made, band_bytes=band_bytes)
            contents.add(Path(report.output or "").read_bytes())
        assert len(contents) == 1


def test_file_of_several_pages_is_refused_by_name(raw: Path) -> None:
    tifffile.imwrite(raw / "a.tif", np.stack(some(3)), photometric="minisblack", compression="zlib")
    with pytest.raises(GroupUnfitError, match=r"a\.tif: cannot combine it: it has 3 pages"):
        convert_group(members([raw / "a.tif"]), recipe("max"))
    assert files_in(raw.parent) == ["a.tif"]


def test_overexposed_pixels_of_any_member_are_counted(raw: Path) -> None:
    images = [np.full(SHAPE, 10, np.uint16) for _ in range(3)]
    images[0][0, 0] = images[2][0, 0] = images[1][3, 3] = 60_000
    report = convert_group(members(frames(raw, images)), recipe("mean", corrections={"saturation": 50_000}))
    assert report.pixels.overexposed == 2


def test_name_is_of_the_first_member_or_by_template(raw: Path, tmp_path: Path) -> None:
    paths = frames(raw, some())
    assert convert_group(members(paths), recipe()).output == str(tmp_path / "processed" / "a-00001.tif")
    template = "{group}_{first}_{last}_{sample_x:.1f}"
    made = recipe(output={"template": template})
    report = convert_group(members(paths, sample_x=1.25), made, group="run/pe_image/7")
    assert Path(report.output or "").name == "run_pe_image_7_a-00001_a-00004_1.2.tif"
    assert report.group == "run/pe_image/7"
    with pytest.raises(NameTemplateError, match="sample_x"):
        convert_group(members(paths), made, group="g7")


def test_tags_hold_number_first_last_and_hash_only(raw: Path) -> None:
    paths = frames(raw, some(40))
    report = convert_group(members(paths), recipe("sigma_clip"))
    output = Path(report.output or "")
    found = inspect_file(output)["provenance"]["combined"]
    digest = found.pop("frames_sha256")
    assert len(digest) == 64
    assert found == {
        "method": "sigma_clip", "sigma": 3.0, "frames": 40, "used": 40, "first": "a-00001.tif", "last": "a-00040.tif"
    }  # fmt: skip
    with tifffile.TiffFile(output) as opened:
        description = opened.pages[0].tags["ImageDescription"].value  # type: ignore[union-attr]
    assert "a-00020" not in description
    assert len(description) < 1000
    shown = CliRunner().invoke(inspect, [str(output)]).output
    assert "combined    sigma_clip of 40 of 40 frames: a-00001.tif to a-00040.tif" in shown
    assert all(f"    grouped          {path}\n" in shown for path in paths)


def test_missing_members_fail_the_group_by_name(raw: Path, tmp_path: Path) -> None:
    paths = frames(raw, some())
    paths[2].unlink()
    with pytest.raises(GroupIncompleteError, match=r"1 of 4 frames are missing or failed: a-00003\.tif"):
        convert_group(members(paths), recipe())
    known = [*members(paths[:2]), replace(members(paths[2:3])[0], problem="cancelled"), *members(paths[3:])]
    with pytest.raises(GroupIncompleteError, match=r"a-00003\.tif \(cancelled\)"):
        convert_group(known, recipe())
    assert not (tmp_path / "processed").exists()


@pytest.mark.parametrize("missing", [0, 2])
def test_incomplete_group_says_how_many_until_it_is_complete(raw: Path, tmp_path: Path, missing: int) -> None:
    images = some(4)
    paths = frames(raw, images, data_type="16 Bit Raw Data")
    content = paths[missing].read_bytes()
    paths[missing].write_bytes(content[:200])
    made = recipe(on_incomplete="combine")
    report = convert_group(members(paths), made)
    np.testing.assert_array_equal(image_of(report), np.sum(np.delete(images, missing, axis=0), axis=0))
    assert files_in(tmp_path / "processed") == beside("a-00001_3of4.tif")
    assert "3 of 4" in report.reason
    assert [each.outcome for each in report.members].count("failed") == 1
    assert report.members[missing].reason
    found = inspect_file(Path(report.output or ""))["provenance"]["combined"]
    assert (found["used"], found["frames"]) == (3, 4)
    shown = CliRunner().invoke(inspect, [str(report.output)]).output
    assert "1 MISSING" in shown
    assert f"    failed           {paths[missing]}: {report.members[missing].reason}\n" in shown
    assert shown.count("    grouped   ") == 3
    paths[missing].write_bytes(content)
    report = convert_group(members(paths), made)  # a late member makes the group anew
    np.testing.assert_array_equal(image_of(report), np.sum(images, axis=0))
    assert files_in(tmp_path / "processed") == beside("a-00001.tif")


def test_complete_output_stays_when_a_member_is_lost(raw: Path, tmp_path: Path) -> None:
    images, made = some(3), recipe(on_incomplete="combine")
    paths = frames(raw, images, data_type="16 Bit Raw Data")
    convert_group(members(paths), made, job="g")
    paths[1].unlink()
    report = convert_group(members(paths), made, job="g")
    np.testing.assert_array_equal(image_of(report), images[0] + images[2])
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "processed" / "a-00001.tif"), np.sum(images, axis=0))


def test_member_that_breaks_while_it_is_read_is_left_out(raw: Path) -> None:
    images = some(3)
    paths = [raw / f"{number}.tif" for number in range(3)]
    for path, image in zip(paths, images, strict=True):
        tifffile.imwrite(path, image, compression="zlib")
    data = bytearray(paths[1].read_bytes())
    data[-60:-20] = bytes(40)  # the structure is whole, the pixels are not
    paths[1].write_bytes(data)
    with pytest.raises(GroupIncompleteError, match=r"1 of 3.*1\.tif"):
        convert_group(members(paths), recipe())
    report = convert_group(members(paths), recipe(on_incomplete="combine"))
    np.testing.assert_array_equal(image_of(report), images[0] + images[2])


def test_member_that_shrinks_while_it_is_read_by_rows_is_named(raw: Path) -> None:
    paths = frames(raw, some(3))

    def cut(done: int, _: int) -> None:
        if done == 1:
            with paths[1].open("r+b") as file:
                file.truncate(10)

    with pytest.raises(GroupIncompleteError, match=r"1 of 3.*a-00002\.tif.*shrank"):
        convert_group(members(paths), recipe("median"), on_progress=cut)


def test_no_member_at_all_is_an_error_even_if_others_may_be_missing(raw: Path) -> None:
    with pytest.raises(GroupIncompleteError, match="2 of 2"):
        convert_group(members([raw / "a.tif", raw / "b.tif"]), recipe(on_incomplete="combine"))
    with pytest.raises(GroupUnfitError, match="0 frames"):
        convert_group([], recipe())
    with pytest.raises(GroupUnfitError, match="100000 frames"):
        convert_group(members([raw / "a.tif"]) * 100_000, recipe())
    with pytest.raises(GroupUnfitError, match="combine"):
        convert_group(members([raw / "a.tif"]), Recipe())
    with pytest.raises(GroupUnfitError, match="this is one"):
        convert_file(raw / "a.tif", recipe())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": np.ones((8, 6), np.uint16)}, "8 x 6 pixels"),
        ({"image": np.ones(SHAPE, np.uint32)}, "uint32"),
        ({"time": 2.0}, "exposure 2 s, not 1 s"),
        ({"gain": 3}, "gain"),
        ({"data_type": "Subtracted Data"}, "dark was subtracted"),
        ({"summed": 2}, "2.0 summed exposures, not 1.0"),
    ],
)
def test_unlike_members_are_refused_by_name(raw: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    paths = frames(raw, some(3), data_type="16 Bit Raw Data")
    odd = write_exposure(raw / "odd.tif", changes.pop("image", some(1)[0]), **changes)
    with pytest.raises(GroupUnfitError, match=message) as caught:
        convert_group(members([*paths, odd]), recipe("mean", on_incomplete="combine"))
    assert "odd.tif" in str(caught.value)
    assert "a-00001.tif" in str(caught.value)
    assert not (tmp_path / "processed").exists()


def test_member_without_the_dark_of_the_others_is_refused(raw: Path) -> None:
    paths = frames(raw, some(2))
    np.save(raw / "dark.npy", np.zeros(SHAPE, np.float32))
    made = recipe(corrections={"dark": "run", "on_missing_dark": "convert"})
    assert made.corrections is not None
    dark = made.corrections.with_dark((str(raw / "dark.npy"),))
    first, second = members(paths)
    with pytest.raises(GroupUnfitError, match="dark"):
        convert_group([replace(first, corrections=dark), second], made)
    report = convert_group([replace(each, corrections=dark) for each in (first, second)], made)
    assert len(report.masters) == 1


def test_sum_adds_the_exposures_in_the_sidecar(raw: Path) -> None:
    paths = frames(raw, some(3), time=0.5, summed=2, data_type="16 Bit Raw Data")
    report = convert_group(members(paths), recipe())
    found = read_sidecar(Path(report.output or ""))
    assert found is not None
    assert (found.header.summed, found.header.exposure) == (6, 3.0)
    report = convert_group(members(paths), recipe("mean"))
    found = read_sidecar(Path(report.output or ""))
    assert found is not None
    assert (found.header.summed, found.header.exposure) == (2, 1.0)


def test_sum_of_an_unknown_exposure_has_no_sidecar(raw: Path, tmp_path: Path) -> None:
    paths = frames(raw, some(3), data_type="16 Bit Raw Data")
    sidecar_path(paths[1]).unlink()
    report = convert_group(members(paths), recipe())
    assert "no sidecar" in report.reason
    assert files_in(tmp_path / "processed") == ["a-00001.tif", "a-00001.tif.members.csv"]


def test_full_disk_leaves_nothing(raw: Path, tmp_path: Path) -> None:
    tall = [np.ones((200, 300), np.uint16)] * 2
    paths = frames(raw, tall)
    (tmp_path / "processed").mkdir()
    with no_file_grows_beyond(50_000), pytest.raises(OutputWriteError):
        convert_group(members(paths), recipe())
    assert files_in(tmp_path / "processed") == []


def test_output_of_another_frame_is_not_replaced(raw: Path, tmp_path: Path) -> None:
    paths = frames(raw, some(3))
    target = tmp_path / "out.tif"
    convert_group(members(paths[1:]), recipe(), output=target)
    before = target.read_bytes()
    with pytest.raises(OutputExistsError, match="another source"):
        convert_group(members(paths), recipe(), output=target)
    assert target.read_bytes() == before
    skipping = recipe(output={"on_existing": "skip"})
    report = convert_group(members(paths), skipping, output=target)
    assert {report.outcome, *(each.outcome for each in report.members)} == {"skipped"}


def test_outputs_and_paths_outside_the_roots_are_no_members(raw: Path, tmp_path: Path) -> None:
    paths = frames(raw, some(2))
    converted = convert_file(paths[0], Recipe()).output
    with pytest.raises(GroupIncompleteError, match="not a raw frame"):
        convert_group(members([Path(converted or ""), paths[1]]), recipe(output={"folder": str(tmp_path / "out")}))
    (outside,) = frames(tmp_path, some(1))
    with pytest.raises(GroupIncompleteError, match="outside the folders"):
        convert_group(members([paths[0], outside]), recipe(), roots=Roots.of([raw]))
    combined = convert_group(members(paths), recipe()).output
    with pytest.raises(ConvertedDifferentlyError, match=r"combination \(sum\) of 2 of 2 frames"):
        convert_file(combined or "", Recipe(output={"folder": str(tmp_path / "out")}))  # type: ignore[arg-type]


def test_sums_that_no_type_holds_are_refused(raw: Path) -> None:
    images = [np.full(SHAPE, 2**62, np.int64)] * 2
    paths = [raw / f"{number}.tif" for number in range(2)]
    for path, image in zip(paths, images, strict=True):
        tifffile.imwrite(path, image)
    with pytest.raises(UnsupportedImageError, match="64-bit"):
        convert_group(members(paths), recipe())


def test_few_members_cannot_be_clipped_and_the_report_says_so(raw: Path) -> None:
    report = convert_group(members(frames(raw, some(7))), recipe("sigma_clip"))
    assert "no value can deviate" in report.reason
    assert not convert_group(members(frames(raw, some(8), "b")), recipe("sigma_clip")).reason


def test_report_of_a_group_survives_the_wire(raw: Path) -> None:
    report = convert_group(members(frames(raw, some(2))), recipe(), group="g")
    single = convert_file(frames(raw, some(1), "b")[0], Recipe())
    answer = ReportsAnswer(reports=[report, single], pending=0)
    back = ReportsAnswer.model_validate_json(answer.model_dump_json())
    assert back == answer
    assert isinstance(back.reports[0], GroupReport)
    assert "members" not in json.loads(answer.model_dump_json())["reports"][1]


ESPERANTO = {
    "omega": {"start": "begin", "end": "end"}, "wavelength": 0.29, "distance": 300, "pixel_size": 0.2,
    "beam_center": [3, 2], "exposure": 0.5, "monitor": "ion_chamber",
}  # fmt: skip


def scan(paths: Sequence[Path], starts: Sequence[float], width: float = 1.0) -> list[Member]:
    return [
        Member(FrameLocation(path), {"begin": start, "end": start + width, "ion_chamber": 10 + number})
        for number, (path, start) in enumerate(zip(paths, starts, strict=True))
    ]


def test_esperanto_frame_of_a_sum_has_all_angles(raw: Path) -> None:
    images = some(3)
    paths = frames(raw, images)
    made = recipe(format="esperanto", esperanto={**ESPERANTO, "encoding": "4BYTE_LONG"})
    report = convert_group(scan(paths, [-1, 0, 1.0001]), made)
    output = Path(report.output or "")
    header = read_header(output)
    assert sorted((abs(header.start.omega), abs(header.end.omega))) == pytest.approx([1, 2.0001])
    assert (header.exposure, header.monitor) == (1.5, 33)
    _, pixels = read_esperanto(output)
    assert pixels.max() == np.sum(images, axis=0).max()
    found = provenance_in(header.history)
    assert found is not None
    assert found.combined is not None
    assert (found.combined["method"], found.combined["used"], found.combined["frames"]) == ("sum", 3, 3)
    assert [each["source"] for each in inspect_file(output)["members"]] == [str(path) for path in paths]
    mean = convert_group(scan(paths, [-1, 0, 1]), made.model_copy(update={"combine": recipe("mean").combine}))
    header = read_header(Path(mean.output or ""))
    assert (header.exposure, header.monitor) == (0.5, 10)


@pytest.mark.parametrize("starts", [[0, 1, 2.1], [0, 2, 1], [0, 0, 0]])
def test_esperanto_frames_with_gaps_are_refused_by_name(raw: Path, tmp_path: Path, starts: list[float]) -> None:
    made = recipe(format="esperanto", esperanto=ESPERANTO)
    with pytest.raises(GroupUnfitError, match=r"contiguous") as caught:
        convert_group(scan(frames(raw, some(3)), starts), made)
    assert "omega" in str(caught.value)
    assert not (tmp_path / "processed").exists()


@pytest.mark.parametrize("damage", [{"frames": "ten"}, {"used": -1}, {"used": None}, []])
def test_provenance_of_others_is_no_combination(damage: Any) -> None:
    facts = {"method": "sum", "frames": 10, "used": 8, "first": "a", "last": "b\x1b", "frames_sha256": "0"}
    place = FrameLocation(Path("/raw/a.tif")), Path("/processed/a.tif")
    found = provenance_in_description(describe(Recipe(), *place, combined=facts))
    assert found is not None
    assert found.combined == {**facts, "last": "b\\x1b"}
    wrong = {**facts, **damage} if isinstance(damage, dict) else damage
    text = describe(Recipe(), *place, combined=facts).replace('"combined":', '"other":')
    record = {**json.loads(text), "combined": wrong}
    found = provenance_in_description(json.dumps(record))
    assert found is not None
    assert found.combined is None
