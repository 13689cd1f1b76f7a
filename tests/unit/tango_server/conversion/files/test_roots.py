"""Which paths a server takes, and what it tells of those that it does not."""

import os
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from tango_server.conversion.errors import ConversionError, NoOutputPathError, OutsideRootsError, UnfitPathError
from tango_server.conversion.files.path_checks import require_fit
from tango_server.conversion.files.roots import ANYWHERE, Roots, caching_resolver, output_path, resolve_path
from tango_server.recipe import Recipe
from tango_server.text import printable


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A root called `data` with folders and links, and beside it what is none of anybody's business."""
    base = tmp_path.resolve()
    for folder in ("data/raw/scan", "data/state", "secret/inner"):
        (base / folder).mkdir(parents=True)
    (base / "data/raw/scan/a.tif").write_bytes(b"frame")
    (base / "secret/there.tif").write_bytes(b"secret")
    links = {
        "data/raw/out": base / "secret",
        "data/raw/there.tif": base / "secret/there.tif",
        "data/raw/absent.tif": base / "secret/absent.tif",
        "data/raw/loop": base / "data/raw/loop",
        "data/raw/inside.tif": base / "data/raw/scan/a.tif",
        "data/raw/odd.tif": base / "data/raw/odd\nname.tif",
        "data/current": base / "data/raw/scan",
        "current": base / "data/raw",
        "secret/loop": base / "secret/loop",
    }
    if sys.platform == "win32":
        pytest.skip("Windows needs a right for links")
    for name, target in links.items():
        (base / name).symlink_to(target)
    return base


@pytest.fixture
def roots(base: Path) -> Roots:
    return Roots.of([base / "data"], private=[base / "data" / "state"])


def refusal(call: Callable[[], object]) -> ConversionError:
    with pytest.raises((OutsideRootsError, UnfitPathError)) as caught:
        call()
    return caught.value


RESOLVE = pytest.mark.parametrize("resolve", [resolve_path, caching_resolver()], ids=["fresh", "caching_resolver"])
OUTSIDE = [
    "secret/there.tif", "secret/absent.tif", "secret", "no/such/folder/a.tif", "data-2/a.tif", "datas", "/",
    "/dev/zero", "/proc/self/environ", "data/raw/out/there.tif", "data/raw/out/absent.tif", "data/raw/there.tif",
    "data/raw/absent.tif", "data/raw/../../secret/there.tif", "data/../secret/there.tif", "data/raw/out/../there.tif",
    "secret/../data/raw/scan/a.tif", "nothing/../data/raw/scan/a.tif",
    "secret/inner/../../data/raw/scan/a.tif", "secret/loop", "secret/loop/a.tif", "data/state/ledger.sqlite",
    "data/state",
]  # fmt: skip
WITHIN = [
    "data/raw/scan/a.tif", "data/current/a.tif", "current/scan/a.tif", "data/raw/inside.tif", "data/raw//scan/./a.tif",
    "data/raw/../raw/scan/a.tif", "data/current/../scan/a.tif", "current/../raw/scan/a.tif",
]  # fmt: skip
ODD_NAMES = ["M\u00fcller \u03a9.tif", "\u05d0\u05d1.tif", "a b'\"$(id);|&.tif", "\u2025.tif", "-rf", "..a"]
UNFIT = {
    "raw/a.tif": "a relative path",
    "": "a relative path",
    "~/a.tif": "a relative path",
    "file:///data/a.tif": "a relative path",
    "DATA/a\nb.tif": r"character '\n'",
    "DATA/a\0.tif": r"character '\x00'",
    "DATA/\x1b[2J.tif": r"character '\x1b'",
    "DATA/a\u2028b.tif": r"character '\u2028'",
    "DATA/\u202efit.a": r"character '\u202e'",
    "DATA/" + "n" * 256: "a name of 256 bytes",
    "DATA/" + "\u03a9" * 128: "a name of 256 bytes",
    "DATA/" + "d/" * 2100: "a path of",
    "DATA/raw/loop": "cannot be resolved",
    "DATA/raw/loop/a.tif": "cannot be resolved",
    "DATA/raw/odd.tif": r"character '\n'",
}


@RESOLVE
def test_what_lies_outside_is_refused_whether_it_is_there_or_not(
    resolve: Callable[[Path], Path], base: Path, roots: Roots
) -> None:
    for path, (call, purpose) in product(OUTSIDE, ((roots.source, "read"), (roots.target, "written"))):
        error = refusal(lambda call=call, path=path: call(base / path, resolve))
        assert isinstance(error, OutsideRootsError), path
        assert error.problem.startswith(f"outside the folders that may be {purpose} ("), path
        assert error.path == str(base / path)


@RESOLVE
def test_an_unfit_path_is_refused_by_what_is_wrong_with_it(
    resolve: Callable[[Path], Path], base: Path, roots: Roots
) -> None:
    for path, found in UNFIT.items():
        error = refusal(lambda path=path: roots.source(path.replace("DATA", str(base / "data")), resolve))
        assert isinstance(error, UnfitPathError), path
        assert found in error.problem, path
        assert str(error).isprintable(), path
        assert len(str(error)) < 1000, path


@RESOLVE
def test_every_way_to_a_file_within_is_the_same_file(resolve: Callable[[Path], Path], base: Path, roots: Roots) -> None:
    for path in [*WITHIN, *WITHIN]:
        assert roots.source(str(base / path), resolve) == base / "data/raw/scan/a.tif", path
    for name in ODD_NAMES:
        assert roots.source(str(base / "data/raw" / name), resolve) == base / "data/raw" / name


def test_one_call_checks_each_folder_once(base: Path, roots: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    real = os.lstat

    def lstat(path: str, *arguments: object, **options: object) -> os.stat_result:
        looked.append(os.fspath(path))
        return real(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "lstat", lstat)
    resolve = caching_resolver()
    sources = [roots.source(base / f"data/current/f{number}.tif", resolve) for number in range(100)]
    assert sources[99] == base / "data/raw/scan/f99.tif"
    assert len(looked) < 50


def test_the_root_that_holds_an_output_is_the_innermost(tmp_path: Path) -> None:
    roots = Roots.of([tmp_path / "a"], [tmp_path / "b", tmp_path / "b" / "c"])
    root = tmp_path.resolve()
    assert roots.write_root_of(root / "b" / "c" / "x.tif") == root / "b" / "c"
    assert roots.write_root_of(root / "b" / "c2" / "x.tif") == root / "b"
    assert roots.root_of(root / "a" / "x.tif") == root / "a"
    assert roots.outputs == Roots(roots.write, roots.write)
    assert ANYWHERE.write_root_of(root / "x.tif") == Path(root.anchor)


def test_roots_to_read_alone_would_open_every_folder_for_writing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="all folders"):
        Roots(read=(tmp_path,))
    with pytest.raises(ValueError, match="all folders"):
        Roots(write=(tmp_path,))


def test_an_output_goes_into_no_private_or_unfit_folder(base: Path, roots: Roots) -> None:
    source = base / "data/raw/scan/a.tif"
    for folder in (base / "data/state", base / "data/raw/../state", base / "data/raw/out", base / "data/raw/loop"):
        refusal(lambda folder=folder: output_path(source, Recipe(output={"folder": str(folder)}), roots))
    for folder in ("relative", str(base / "data/a\nb"), str(base / "data" / ("n" * 256))):
        refusal(lambda folder=folder: output_path(source, Recipe(output={"folder": folder}), roots))
    with pytest.raises(NoOutputPathError, match="the source itself"):
        output_path(source, Recipe(output={"folder": str(base / "data/current")}), roots)


def test_a_program_without_roots_takes_whatever_the_system_takes(tmp_path: Path) -> None:
    odd = tmp_path.resolve() / "line\nbreak.tif"
    assert ANYWHERE.source(odd) == odd
    assert ANYWHERE.source("a.tif") == Path.cwd() / "a.tif"
    with pytest.raises(UnfitPathError, match="cannot be resolved"):
        ANYWHERE.source("/data/a\0.tif")


def test_texts_for_people_are_short_and_on_one_line() -> None:
    assert printable("a\nb\x00\u202e\udcfc") == r"a\nb\x00\u202e\udcfc"
    assert len(printable("x" * 10**6)) < 400
    require_fit("/" + "\ud800" * 80)
