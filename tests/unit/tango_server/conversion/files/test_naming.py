"""Where outputs go and what they are called."""

from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest

from tango_server.conversion.errors import NameTemplateError, NoOutputPathError, OutsideRootsError
from tango_server.conversion.files.naming import esperanto_path, named_by
from tango_server.conversion.files.roots import Roots, apply_rule, output_path
from tango_server.recipe import Recipe

FRAME = Path("/data/raw/scan_007-00042.tif")


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
    assert str(FRAME) in str(caught.value)


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
        named_by(template, Path(f"{stem}.tif"), {})
    str(caught.value).encode()


def test_stem_of_a_thousand_digits_is_accepted() -> None:
    assert named_by("{index:020d}", Path(f"{'7' * 5000}.tif"), {}) == "00" + "7" * 18 + ".tif"


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
    assert esperanto_path(Path(f"/data/raw/{stem}.tif"), fields).as_posix() == expected
