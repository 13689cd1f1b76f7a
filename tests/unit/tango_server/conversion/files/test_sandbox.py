"""What is opened below a root stays below it, whatever is exchanged meanwhile."""

import errno
import os
import random
import shutil
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import tifffile

import tango_server.conversion.files.sandbox as room
from tango_server.conversion import ConversionError, convert_file
from tango_server.conversion.errors import OutputWriteError, OutsideRootsError, SourceError, SourceUnreadableError
from tango_server.conversion.files.atomic_write import Attempt, publish, write_parts
from tango_server.conversion.files.roots import Roots
from tango_server.conversion.files.sandbox import is_taken, open_file, open_folder
from tango_server.conversion.files.temporary_names import remove_leftovers, temporary_path
from tango_server.conversion.sidecar import carry_sidecar, read_sidecar
from tango_server.conversion.tiff.parser import read_structure
from tango_server.messages import FrameReport
from tango_server.recipe import Recipe

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has no handles of folders, and needs a right for links"
)
XDI = Recipe.preset("xdi", rotation=90)
SIDECAR = "[metadata]\nwidth=64\n"


class Place:
    """A root with a source, an output folder, and a tree beside it that nothing may touch."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.root = folder / "root"
        self.source = self.root / "raw" / "scan" / "a.tif"
        self.output = self.root / "processed" / "scan" / "a.tif"
        self.outside = folder / "outside"
        self.roots = Roots.of([self.root])
        self.frame = data / "qxrd_f32_64.tif"
        for path in (self.source, self.outside / "scan" / "a.tif", self.outside / "a.tif"):
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.frame, path)
        self._before = self.listing()

    def convert(self, recipe: Recipe = XDI, **options: Any) -> FrameReport:
        return convert_file(self.source, recipe, output=self.output, roots=self.roots, **options)

    def listing(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.outside)): path.read_bytes() if path.is_file() else b"folder"
            for path in self.outside.rglob("*")
        }

    def assert_nothing_is_written_outside(self) -> None:
        assert self.listing() == self._before
        assert not [path for path in self.root.rglob("*.petif-tmp") if not path.is_symlink()]


@pytest.fixture
def place(tmp_path: Path, data: Path) -> Iterator[Place]:
    place = Place(tmp_path.resolve(), data)
    yield place
    place.assert_nothing_is_written_outside()


@pytest.fixture(params=["handles", "paths"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open folders as POSIX does, and as Windows does, which any system can."""
    if request.param == "paths":
        monkeypatch.setattr(room, "HANDLES", False)


def exchange(path: Path, target: Path) -> None:
    """Put a link to `target` where `path` is; what was there stays beside it."""
    path.rename(path.with_name(path.name + "-moved"))
    path.symlink_to(target, target_is_directory=target.is_dir())


@pytest.mark.usefixtures("way")
def test_a_frame_is_converted_below_its_roots(place: Place) -> None:
    assert place.convert().outcome == "converted"
    expected = np.rot90(tifffile.imread(place.frame)).astype(np.int32)
    np.testing.assert_array_equal(tifffile.imread(place.output), expected)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("name", ["raw", "raw/scan", "raw/scan/a.tif"])
@pytest.mark.parametrize("recipe", [XDI, Recipe.preset("xdi", output={"mode": "in_place"})], ids=["new", "in place"])
def test_a_source_that_a_link_leads_to_is_not_read(place: Place, name: str, recipe: Recipe) -> None:
    exchange(place.root / name, place.outside / name.removeprefix("raw").strip("/"))
    with pytest.raises(OutsideRootsError, match="symbolic link"):
        convert_file(place.source, recipe, output=place.output, roots=place.roots)
    assert not place.output.exists()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("name", ["processed", "processed/scan"])
@pytest.mark.parametrize("on_existing", ["replace_own", "skip", "refuse", "number"])
def test_an_output_that_a_link_leads_to_is_not_written(place: Place, name: str, on_existing: str) -> None:
    place.output.parent.mkdir(parents=True)
    exchange(place.root / name, place.outside / name.removeprefix("processed").strip("/"))
    with pytest.raises(OutsideRootsError, match="symbolic link"):
        place.convert(Recipe.preset("xdi", output={"on_existing": on_existing}))


@pytest.mark.usefixtures("way")
def test_a_link_in_place_of_the_output_is_left_as_it_is(place: Place) -> None:
    place.output.parent.mkdir(parents=True)
    place.output.symlink_to(place.outside / "new.tif")
    with pytest.raises(OutsideRootsError, match="symbolic link"):
        place.convert()
    assert place.output.is_symlink()
    report = place.convert(Recipe.preset("xdi", output={"on_existing": "number"}))
    assert report.output == str(place.output.with_name("a-00001.tif"))


def test_a_link_within_or_instead_of_the_root_is_not_followed(place: Place) -> None:
    place.convert()
    other = place.root / "raw" / "other"
    shutil.copytree(place.source.parent, other)
    exchange(place.source.parent, other)
    with pytest.raises(OutsideRootsError):
        place.convert()
    exchange(place.root, place.outside)
    (place.outside / "raw").symlink_to(place.outside)
    with pytest.raises(OutsideRootsError):
        place.convert()
    (place.outside / "raw").unlink()


@pytest.mark.parametrize("outside", ["outside/a.tif", "root/raw/../../outside/a.tif", "root-2/a.tif", "root"])
def test_a_path_beyond_the_roots_is_not_opened(place: Place, outside: str) -> None:
    with pytest.raises(OutsideRootsError):
        open_file(place.root.parent / outside, place.roots.read)


@pytest.mark.usefixtures("way")
def test_a_sidecar_that_is_a_link_or_a_fifo_is_not_carried(place: Place) -> None:
    secret, sidecar = place.root.parent / "secret", place.source.with_name("a.tif.metadata")
    secret.write_text(SIDECAR)
    sidecar.symlink_to(secret)
    with pytest.raises(OutsideRootsError):
        read_sidecar(place.source, place.roots)
    with pytest.raises(OutsideRootsError):
        carry_sidecar(place.source, place.output, XDI, "job", place.roots)
    assert place.convert().sidecar == "absent"
    sidecar.unlink()
    make_fifo(sidecar)
    assert place.convert().sidecar == "absent", "a fifo holds nobody up"
    assert not place.output.with_name("a.tif.metadata").exists()


@pytest.mark.usefixtures("way")
def test_a_link_in_place_of_a_carried_sidecar_is_replaced(place: Place) -> None:
    place.source.with_name("a.tif.metadata").write_text(SIDECAR)
    carried = place.output.with_name("a.tif.metadata")
    carried.parent.mkdir(parents=True)
    carried.symlink_to(place.outside / "new")
    assert place.convert().sidecar == "carried"
    assert not carried.is_symlink()
    assert carried.read_text().startswith("[metadata]")


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, socket.socket(socket.AF_UNIX) as listener:
        patch.chdir(path.parent)  # the path of a socket is short
        listener.bind(path.name)


def make_device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
        path.open("rb").close()
    except OSError:
        path.unlink(missing_ok=True)
        pytest.skip("only root makes devices, and not everywhere")


@pytest.mark.parametrize("make", [Path.mkdir, make_fifo, make_socket, make_device], ids=lambda make: make.__name__)
def test_what_is_no_regular_file_is_refused_at_once(place: Place, make: Callable[[Path], None]) -> None:
    place.source.unlink()
    make(place.source)
    with pytest.raises(SourceUnreadableError, match=r"not a regular file|No such device"):
        place.convert()
    with pytest.raises(SourceUnreadableError):
        read_structure(place.source, place.roots)
    with pytest.raises(SourceUnreadableError):
        read_structure(place.source)


def test_the_server_s_lease_on_a_file_is_waited_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    real, flags_seen = os.open, []

    def leased(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if path == "a.tif":
            flags_seen.append(flags)
            if flags & os.O_NONBLOCK:
                raise BlockingIOError(errno.EWOULDBLOCK, "Resource temporarily unavailable")
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", leased)
    with open_file(place.source, place.roots.read) as file:
        assert file.read(2) == b"II"
    assert [bool(flags & os.O_NONBLOCK) for flags in flags_seen] == [True, False]
    assert all(flags & os.O_NOFOLLOW for flags in flags_seen)


@pytest.mark.skipif(
    os.name == "nt" or os.geteuid() == 0 or not hasattr(os, "O_PATH"), reason="folders are open to root"
)
def test_a_folder_that_may_not_be_listed_can_be_worked_in(place: Place) -> None:
    place.source.parent.chmod(0o300)
    place.output.parent.mkdir(parents=True)
    place.output.parent.chmod(0o300)
    try:
        assert place.convert().outcome == "converted"
    finally:
        place.source.parent.chmod(0o700)
        place.output.parent.chmod(0o700)


def moved_away(place: Place) -> None:
    place.output.parent.rename(place.root / "processed" / "elsewhere")


def link_outside(place: Place) -> None:
    exchange(place.output.parent, place.outside / "scan")


def link_further_up(place: Place) -> None:
    exchange(place.root / "processed", place.outside)


def another_folder(place: Place) -> None:
    moved_away(place)
    place.output.parent.mkdir()


def removed(place: Place) -> None:
    shutil.rmtree(place.output.parent)


def remove_temporary(place: Place) -> Path:
    (temporary,) = place.output.parent.glob(".*.petif-tmp")
    temporary.unlink()
    return temporary


def temporary_linked(place: Place) -> None:
    remove_temporary(place).symlink_to(place.outside / "a.tif")


def temporary_exchanged(place: Place) -> None:
    remove_temporary(place).write_bytes(b"forged")


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize(
    "meddle",
    [moved_away, link_outside, link_further_up, another_folder, removed, temporary_linked, temporary_exchanged,
     remove_temporary],
)  # fmt: skip
def test_an_exchange_while_the_file_is_written_is_noticed(
    place: Place, meddle: Callable[[Place], object], exclusive: bool
) -> None:
    def write(file: BinaryIO) -> None:
        file.write(b"first half, ")
        meddle(place)
        file.write(b"second half")

    with pytest.raises(OutputWriteError, match=r"replaced|No such file"):
        publish(place.output, write, Attempt("job", exclusive=exclusive), place.roots)
    assert not [path for path in place.root.rglob("a.tif") if path != place.source]


def test_a_late_link_as_the_temporary_file_names_nothing_else(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def late(*names: str, **options: Any) -> None:
        temporary_linked(place)
        real(*names, **options)

    monkeypatch.setattr(os, "link", late)
    publish(place.output, write_parts([b"frame"]), Attempt("job", exclusive=True), place.roots)
    assert place.output.is_symlink(), "a hard link to a file outside could be read by everybody who may read the root"
    assert (place.outside / "a.tif").stat().st_nlink == 1


@pytest.mark.usefixtures("way")
def test_leftovers_are_removed_but_not_behind_a_link(place: Place) -> None:
    place.output.parent.mkdir(parents=True)
    below = temporary_path(place.output, "job")
    below.write_bytes(b"half")
    remove_leftovers(place.output, "job", place.roots)
    assert not below.exists()
    exchange(place.root / "processed", place.outside)
    behind = temporary_path(place.outside / "scan" / "a.tif", "job")
    behind.write_bytes(b"half")
    remove_leftovers(place.output, "job", place.roots)
    assert behind.exists()
    behind.unlink()


@pytest.mark.usefixtures("way")
def test_file_in_place_of_a_folder_is_reported(place: Place) -> None:
    (place.root / "processed").write_bytes(b"a file")
    with pytest.raises(OutputWriteError, match="its folder is a file"):
        place.convert()


@pytest.mark.usefixtures("way")
def test_without_roots_links_are_followed(place: Place) -> None:
    link = place.root.parent / "link"
    link.symlink_to(place.root)
    with open_file(link / "raw" / "scan" / "a.tif", ()) as file:
        assert file.read(2) == b"II"
    named = link / "raw" / "scan" / "b.tif"
    named.symlink_to("a.tif")
    assert read_structure(named).state == "complete"
    assert is_taken(named, ())
    report = convert_file(named, XDI, output=link / "deep" / "er" / "b.tif")
    assert report.output == str(place.root / "deep" / "er" / "b.tif")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are listed on Linux only")
def test_no_descriptor_is_left_open(place: Place) -> None:
    place.convert()

    def attempts() -> None:
        beside, beyond = place.output.with_name("b.tif"), place.outside / "a.tif"
        for path in (beside, beyond, place.root / "no" / "such.tif", place.source / "x"):
            with suppress(OSError, ConversionError):
                open_file(path, place.roots.read).close()
            with suppress(OSError, ConversionError):
                publish(path, write_parts([b"x"]), Attempt("a"), Roots((place.outside,), (place.root / "processed",)))
        place.convert()
        with open_folder(place.output.parent, place.roots.write) as folder:
            assert folder.names()
            folder.sync()

    attempts()
    before = len(list(Path("/proc/self/fd").iterdir()))
    attempts()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("what", ["raw/scan", "raw", "processed/scan", "processed", "raw/scan/a.tif"])
def test_a_folder_exchanged_all_the_time_never_leads_outside(place: Place, what: str) -> None:
    """Whatever the moment of the exchange: the right output, or a typed error, and nothing outside."""
    place.convert()
    expected = place.output.read_bytes()
    target = place.root / what
    decoy = place.outside / what.partition("/")[2]
    stop, waiting = threading.Event(), random.Random(4)

    def exchanging() -> None:
        aside = target.with_name("aside")
        while not stop.is_set():
            target.rename(aside)
            with suppress(FileExistsError):  # the conversion has made the folder anew
                target.symlink_to(decoy)
            for _ in range(waiting.randrange(2000)):
                pass
            while os.path.lexists(aside):
                with suppress(OSError):  # the conversion makes the folder anew at any moment
                    if os.path.lexists(target):
                        target.unlink() if target.is_symlink() else shutil.rmtree(target)
                    aside.rename(target)
            stop.wait(waiting.uniform(0, 2e-3))

    wrong = np.zeros((4, 4), np.uint16)
    for path in (place.outside / "scan" / "a.tif", place.outside / "a.tif"):
        tifffile.imwrite(path, wrong)
    before = place.listing()
    meddler = threading.Thread(target=exchanging)
    meddler.start()
    outcomes: dict[str, int] = {}
    try:
        while sum(outcomes.values()) < 150 or ("converted" not in outcomes and sum(outcomes.values()) < 5000):
            try:
                report = place.convert()
                outcome = report.outcome
                assert report.shape == (64, 64), "what lies outside was read"
            except (OutsideRootsError, OutputWriteError, SourceError) as error:
                outcome = type(error).__name__
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
    finally:
        stop.set()
        meddler.join()
    assert place.listing() == before, outcomes
    assert place.output.read_bytes() == expected
    assert not list(place.root.rglob("*.petif-tmp")), outcomes
    assert outcomes.get("converted"), "not one came through"
    shutil.copy(place.frame, place.outside / "scan" / "a.tif")
    shutil.copy(place.frame, place.outside / "a.tif")
