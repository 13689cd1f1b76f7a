"""What a detector PC calls a file, and what it is called here."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tango_server.conversion.errors import OutsideRootsError, PathError, UnfitPathError, UnmappedPathError
from tango_server.conversion.files.path_map import PathMap, absolute
from tango_server.conversion.files.roots import Roots

P022 = PathMap.of(
    [
        r"Y:\ -> /gpfs/current",
        r"Y:\scratch_cc -> /gpfs/scratch",
        r"\\filer\beamline -> /gpfs/current/filer",
        "/mnt/detector -> /gpfs/current/raw",
        "/mnt -> /everything",
    ]
)


TRANSLATED = {
    r"Y:\raw\CeO2\a-00001.tif": "/gpfs/current/raw/CeO2/a-00001.tif",
    r"y:\Raw\CeO2\A.TIF": "/gpfs/current/Raw/CeO2/A.TIF",
    "Y:/raw/a.tif": "/gpfs/current/raw/a.tif",
    r"Y:\raw/mixed\\a.tif": "/gpfs/current/raw/mixed/a.tif",
    r"Y:\.\raw\.\a.tif": "/gpfs/current/raw/a.tif",
    "Y:\\": "/gpfs/current",
    "Y:": "/gpfs/current",
    r"Y:\SCRATCH_CC\a.tif": "/gpfs/scratch/a.tif",
    r"Y:\scratch_cc_2\a.tif": "/gpfs/current/scratch_cc_2/a.tif",
    r"\\Filer\Beamline\a.tif": "/gpfs/current/filer/a.tif",
    "//filer/beamline/a.tif": "/gpfs/current/filer/a.tif",
    r"\\?\Y:\raw\a.tif": "/gpfs/current/raw/a.tif",
    r"\\?\UNC\filer\beamline\a.tif": "/gpfs/current/filer/a.tif",
    "/mnt/detector/a.tif": "/gpfs/current/raw/a.tif",
    "/mnt/Detector/a.tif": "/everything/Detector/a.tif",
    "/mnt/detector2/a.tif": "/everything/detector2/a.tif",
    r"/mnt/detector/a\b.tif": r"/gpfs/current/raw/a\b.tif",
    r"Y:\raw\run.h5::/entry/data": "/gpfs/current/raw/run.h5::/entry/data",
    r"\\Filer\Beamline\run.h5::/entry/../Data\set": r"/gpfs/current/filer/run.h5::/entry/../Data\set",
    "/mnt/detector/run.h5::/mnt/detector": "/gpfs/current/raw/run.h5::/mnt/detector",
    "/mnt/else/run.h5::/mnt/detector": "/everything/else/run.h5::/mnt/detector",
    "Y:\\M\u00fcller \u03a9\\a b.tif": "/gpfs/current/M\u00fcller \u03a9/a b.tif",
}


def test_longest_prefix_is_replaced_and_the_rest_kept() -> None:
    assert {path: P022.translate(path, windows_host=False) for path in TRANSLATED} == TRANSLATED
    one = PathMap.of([r"Y:\ -> /gpfs"])
    for path in (
        "/gpfs/current/raw/a.tif",
        "/a.h5::/Y:/x",
        "raw/a.tif",
        "",
        "a.tif",
        "//two/slashes/a.tif",
    ):  # no prefix fits
        assert one.translate(path, windows_host=False) == path


@pytest.mark.parametrize(
    "path",
    [r"Z:\raw\a.tif", "z:/raw/a.tif", "Z:a.tif", r"\raw\a.tif", r"\\other\share\a.tif", r"\\.\PhysicalDrive0",
     r"\\?\GLOBALROOT\Device\x", r"\\?\Z:\a.tif", r"Y:a.tif", r"\\filer", r"Z:\run.h5::/entry/data"],
)  # fmt: skip
def test_windows_path_without_a_prefix_is_an_error(path: str) -> None:
    with pytest.raises(UnmappedPathError, match="Windows path") as caught:
        PathMap.of([r"Y:\ -> /gpfs"]).translate(path, windows_host=False)
    assert path in str(caught.value)
    assert "Y:\\" in str(caught.value)
    assert "path_maps" in str(caught.value)
    with pytest.raises(PathError):
        PathMap().translate(path, windows_host=False)


def test_a_windows_host_takes_windows_paths_as_they_are() -> None:
    paths = PathMap.of([r"Y:\ -> D:\data"])
    assert paths.translate(r"C:\raw\a.tif", windows_host=True) == r"C:\raw\a.tif"
    assert paths.translate(r"Y:\raw\a.tif", windows_host=True) == r"D:\data/raw/a.tif"


@pytest.mark.parametrize(
    "path",
    [r"Y:\..\..\etc\passwd", r"Y:\raw\..\..\..\etc\passwd", "Y:/../etc/passwd", "/mnt/detector/../../etc/passwd",
     r"\\filer\beamline\..\x", r"Y:\..\raw\a.tif"],
)  # fmt: skip
def test_a_way_out_by_dots_is_refused(path: str) -> None:
    with pytest.raises(UnfitPathError, match=r"'\.\.'"):
        P022.translate(path, windows_host=False)


@settings(max_examples=50)
@given(st.text(alphabet=r"Yy:\/.aß? " + "\n", max_size=30))
def test_translated_paths_lie_below_the_folder(text: str) -> None:
    try:
        translated = PathMap.of([r"Y:\ -> /gpfs/current"]).translate(text, windows_host=False)
    except PathError:
        return
    assert translated == text or Path(translated).is_relative_to("/gpfs/current")
    assert translated == text or ".." not in Path(translated).parts


@pytest.mark.parametrize("path", ["Y:\\link\\a.tif", "Y:\\a\n.tif", "Y:\\" + 300 * "a" + ".tif", "Y:\\a\0.tif"])
def test_a_translated_path_is_checked_like_every_other(tmp_path: Path, path: str) -> None:
    root = tmp_path.resolve() / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    paths = PathMap.of({"Y:\\": str(root)})
    roots = Roots.of([root])
    assert roots.source(paths.translate(r"Y:\a.tif", windows_host=False)) == root / "a.tif"
    with pytest.raises((OutsideRootsError, UnfitPathError)):
        roots.source(paths.translate(path, windows_host=False))


def test_the_ways_to_write_a_map_are_the_same() -> None:
    table = PathMap.of({"Y:\\": "/gpfs/current", "/mnt": "/data"})
    assert table == PathMap.of([r"Y:\ -> /gpfs/current", "  /mnt->/data "])
    assert table == PathMap.of((("Y:\\", "/gpfs/current"), ("/mnt", "/data")))
    assert PathMap.of([]) == PathMap()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Y:\\", "PREFIX -> FOLDER"),
        (r"Y:\ => /gpfs", "PREFIX -> FOLDER"),
        ("-> /gpfs", "PREFIX -> FOLDER"),
        ("raw -> /gpfs", "prefix 'raw'"),
        (r"Y:raw -> /gpfs", "prefix 'Y:raw'"),
        (r"\\server -> /gpfs", "a drive, a share or an absolute path"),
        (r"Y:\ -> gpfs/current", "'gpfs/current'"),
        (r"Y:\ -> /gpfs/../etc", "'/gpfs/../etc'"),
    ],
)
def test_a_wrong_line_is_refused_in_words(line: str, words: str) -> None:
    with pytest.raises(ValueError, match="invalid") as caught:
        PathMap.of([line])
    assert words in str(caught.value)


@pytest.mark.parametrize("lines", [["/data -> /data/raw"], ["/a -> /b/c", r"Y:\ -> /a/d"], ["/ -> /everything"]])
def test_what_is_translated_once_is_not_translated_again(lines: list[str]) -> None:
    with pytest.raises(ValueError, match="would be translated again"):
        PathMap.of(lines)


def test_two_prefixes_that_are_one_are_refused() -> None:
    with pytest.raises(ValueError, match="are the same"):
        PathMap.of([r"Y:\Raw -> /a", "y:/raw/ -> /b"])


@pytest.mark.parametrize(
    ("path", "name"),
    [(r"Z:\raw\a.tif", "a.tif"), ("Z:/raw/", "raw"), (r"\\filer\raw\a.tif", "a.tif"), (r"\\filer\\raw\a.tif", "a.tif"),
     (r"\\?\Z:\a.tif", "a.tif"), (r"\\?\unc\filer\raw\a.tif", "a.tif"), ("/raw/a.tif", "a.tif"),
     (r"/raw/a\b.tif", r"a\b.tif"), ("//a.tif", "a.tif")],
)  # fmt: skip
def test_absolute_paths_of_every_machine_have_their_names(path: str, name: str) -> None:
    whole = absolute(path)
    assert whole is not None
    assert whole.name == name


@pytest.mark.parametrize("path", ["", "raw/a.tif", "Z:a.tif", "Z:.", r"\raw\a.tif", r"\\filer", r"\\.\PhysicalDrive0",
                                  r"\\?\GLOBALROOT\x"])  # fmt: skip
def test_a_path_that_depends_on_a_place_is_not_absolute(path: str) -> None:
    assert absolute(path) is None
