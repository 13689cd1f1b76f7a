"""Where outputs go and what they are called."""

from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest

from tango_server.conversion.errors import NameTemplateError, NoOutputPathError, OutsideRootsError, UnfitPathError
from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.naming import esperanto_path, named_by
from tango_server.conversion.files.roots import Roots, apply_rule, output_path
from tango_server.recipe import Recipe

FRAME = FrameLocation(Path("/data/raw/scan_007-00042.tif"))


@pytest.mark.parametrize(
    ("path", "root", "expected"),
    [
        ("/data/raw/a.tif", "/data", "/data/processed/a.tif"),
        ("/data/raw/x/raw/a.tif", "/data", "/data/processed/x/raw/a.tif"),
        ("/data/raw/a.tif", "/data/raw", "/data/processed/a.tif"),
        ("/data/raw/x/raw/a.tif", "/data/raw", "/data/raw/x/processed/a.tif"),
        ("/raw/x/a.tif", "/raw/x", None),
        ("/data/sample_raw/a.tif", "/data", None),
        ("/data/Raw/a.tif", "/data", None),
        ("/data/x/raw", "/data", None),
    ],
)
def test_the_path_rule_goes_by_components(path: str, root: str, expected: str | None) -> None:
    found = apply_rule(PurePosixPath(path), PurePosixPath(root))
    assert (None if found is None else str(found)) == expected


def test_the_path_rule_on_windows_paths() -> None:
    found = apply_rule(PureWindowsPath(r"Y:\p02\raw\a.tif"), PureWindowsPath("Y:\\"))
    assert found == PureWindowsPath(r"Y:\p02\processed\a.tif")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{stem}", "scan_007-00042.tif"),
        ("{index:03d}", "042.tif"),
        ("{run:.8}_{seq_num:04d}.tiff", "0123abcd_0017.tiff"),
        ("{sample}_{temperature:.1f}K", "CeO2_300.2K.tif"),
        ("{{literal}}", "{literal}.tif"),
    ],
)
def test_a_template_takes_the_frames_fields(template: str, expected: str) -> None:
    fields = {"run": "0123abcd-4567", "seq_num": 17, "sample": "CeO2", "temperature": 300.17}
    assert named_by(template, FRAME, fields) == expected


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{nothing}", "no field 'nothing'"),
        ("{stem.__class__}", "no field"),
        ("{stem[0]}", "no field"),
        ("{index:s}", "invalid template"),
        ("{stem", "invalid template"),
        ("a/{stem}", "separators"),
        ("../{stem}", "separators"),
        ("{evil}", "separators"),
        ("{newline}", "separators"),
        (".{stem}", "no dot at the start"),
        ("{long}", "200 bytes"),
    ],
)
def test_a_template_that_makes_no_name_is_refused(template: str, words: str) -> None:
    fields = {"evil": "../../etc/x", "newline": "a\nb", "long": "x" * 300}
    with pytest.raises(NameTemplateError, match=words) as caught:
        named_by(template, FRAME, fields)
    assert str(FRAME.file) in str(caught.value)


@pytest.mark.parametrize(
    ("template", "stem", "words"),
    [
        ("{index}", "frame", "no field 'index'"),
        ("{index:c}", "a-99999999999", "index:c"),
        ("{stem:>300000000}", "a", "stem:>300000000"),
        ("{index:c}", "a-55296", "index:c"),
        ("{index:05000d}", "a-1", "index:05000d"),
    ],
)
def test_formats_that_do_not_fit_the_stem_are_refused(template: str, stem: str, words: str) -> None:
    with pytest.raises(NameTemplateError, match=words) as caught:
        named_by(template, FrameLocation(Path(f"{stem}.tif")), {})
    str(caught.value).encode()


def test_stem_of_a_thousand_digits_is_accepted() -> None:
    assert named_by("{index:020d}", FrameLocation(Path(f"{'7' * 5000}.tif")), {}) == "00" + "7" * 18 + ".tif"


def test_the_longest_root_that_holds_a_file_counts(tmp_path: Path) -> None:
    inner = tmp_path / "raw" / "inner"
    (inner / "raw").mkdir(parents=True)
    source = inner / "raw" / "a.tif"
    outer_only, both = Roots.of([tmp_path]), Roots.of([tmp_path, inner])
    assert output_path(source, Recipe(), outer_only) == tmp_path / "processed" / "inner" / "raw" / "a.tif"
    assert output_path(source, Recipe(), both) == inner / "processed" / "a.tif"


def test_a_root_called_raw_may_be_written_beside(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    assert output_path(raw / "a.tif", Recipe(), Roots.of([raw])) == tmp_path / "processed" / "a.tif"
    with pytest.raises(OutsideRootsError, match="may be written"):
        output_path(raw / "a.tif", Recipe(), Roots.of([raw], write=[tmp_path / "elsewhere"]))
    with pytest.raises(NoOutputPathError, match="Give the recipe an output folder"):  # there is no raw in the path
        output_path(tmp_path / "a.tif", Recipe(), Roots.of([tmp_path]))


@pytest.mark.parametrize(
    ("preset", "output", "expected"),
    [
        ("xdi", {"template": "{index:05d}"}, "processed/a/00002.tif"),
        ("xdi", {"template": "{index:05d}", "folder": "out"}, "out/00002.tif"),
        ("esperanto", {}, "processed/a/pat_0123abcd/pat_1_2.esperanto"),
        ("esperanto", {"folder": "out"}, "out/pat_0123abcd/pat_1_2.esperanto"),
        ("esperanto", {"folder": "out", "template": "{stem}"}, "out/pat-00002.esperanto"),
    ],
)
def test_rule_folder_and_template_go_together(
    tmp_path: Path, preset: str, output: dict[str, str], expected: str
) -> None:
    if "folder" in output:
        output = {**output, "folder": str(tmp_path / output["folder"])}
    source, fields = tmp_path / "raw" / "a" / "pat-00002.tif", {"run": "0123abcd-4567", "seq_num": 2}
    found = output_path(source, Recipe.preset(preset, output=output), Roots.of([tmp_path]), fields)
    assert found == tmp_path / expected


@pytest.mark.parametrize(
    ("stem", "fields", "expected"),
    [
        ("pat-00017", {"run": "0123abcd-4567", "seq_num": 2}, "pat_0123abcd/pat_1_2.esperanto"),
        ("pat-00017", {"run": "0123abcd-4567", "seq_num": 2, "number": 1}, "pat_0123abcd/pat_1_17.esperanto"),
        ("pat-00017", {"run": "", "seq_num": 0}, "pat/pat_1_17.esperanto"),
        ("cell_2_00017", {}, "cell_2/cell_2_1_17.esperanto"),
        ("pat-00017-00001", {}, "pat-00017/pat-00017_1_1.esperanto"),
        ("pat-00017.raw", {}, "pat/pat_1_17.esperanto"),
        ("00017", {}, "frame/frame_1_17.esperanto"),
        ("single", {}, "single/single_1_1.esperanto"),
    ],
)
def test_crysalis_frames_are_counted_in_a_folder_of_their_scan(
    stem: str, fields: dict[str, object], expected: str
) -> None:
    assert esperanto_path(FrameLocation(Path(f"/data/raw/{stem}.tif")), fields).as_posix() == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [("{stem}", "scan_2_00007.tif"), ("{index:03d}", "007.tif"), ("{frame}.tiff", "7.tiff"), ("a{seq_num}", "a3.tif")],
)
def test_frames_of_one_file_have_names_of_their_own(template: str, expected: str) -> None:
    frame = FrameLocation.of("/data/raw/scan_2.h5::/entry/data", 7)
    assert named_by(template, frame, {"seq_num": 3}) == expected


def test_a_file_of_its_own_has_no_field_frame() -> None:
    with pytest.raises(NameTemplateError, match="no field 'frame'"):
        named_by("{frame}", FRAME, {})


@pytest.mark.parametrize(
    ("source", "index", "expected"),
    [
        ("a.tif", None, "a.tif"),
        ("a.TIFF", None, "a.TIFF"),
        ("a.img", None, "a.img"),  # may be a TIFF, and always kept its name
        ("a.cbf", None, "a.tif"),
        ("a.Edf", None, "a.tif"),
        ("a.b.mccd", None, "a.b.tif"),
        ("a.edf", 0, "a_00000.tif"),
        ("a.nxs", None, "a.tif"),
        ("a.dat::/entry/data/data", None, "a.tif"),
        ("a.h5::/entry/data/data", 123456, "a_123456.tif"),
    ],
)
def test_outputs_are_named_as_tiffs(tmp_path: Path, source: str, index: int | None, expected: str) -> None:
    frame = FrameLocation.of(tmp_path / "raw" / source, index)
    elsewhere = Recipe(output={"folder": str(tmp_path / "out")})
    assert output_path(frame, Recipe(), Roots.of([tmp_path])) == tmp_path / "processed" / expected
    assert output_path(frame, elsewhere, Roots.of([tmp_path])) == tmp_path / "out" / expected


@pytest.mark.parametrize(
    ("source", "index", "words"),
    [
        ("a.h5", 3, "a.h5 frame 3: cannot convert in place: frames in a container are never converted in place"),
        ("a.x::/d", None, "a.x::/d: cannot convert in place: frames in a container are never"),
        ("a.cbf", None, "a.cbf: cannot convert in place: the file is not a TIFF"),
    ],
)
def test_only_tiffs_are_converted_in_place(tmp_path: Path, source: str, index: int | None, words: str) -> None:
    frame = FrameLocation.of(tmp_path / source, index)
    with pytest.raises(UnfitPathError, match=words):
        output_path(frame, Recipe(output={"mode": "in_place"}), Roots.of([tmp_path]))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "scan_2/scan_2_1_17.esperanto"),
        ({"run": "0123abcd-4567", "seq_num": 5}, "scan_2_0123abcd/scan_2_1_17.esperanto"),
        ({"run": "0123abcd-4567", "seq_num": 5, "number": 1}, "scan_2_0123abcd/scan_2_1_17.esperanto"),
    ],
)
def test_crysalis_frames_of_one_file_are_its_scan(fields: dict[str, object], expected: str) -> None:
    assert esperanto_path(FrameLocation(Path("/raw/scan_2.h5"), index=16), fields).as_posix() == expected
