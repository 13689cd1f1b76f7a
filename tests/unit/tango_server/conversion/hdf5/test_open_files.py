"""Files that change while a worker keeps them open: appended to, rewritten, replaced, by another process."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import h5py
import numpy as np
import pytest

from tango_server.conversion.errors import ConversionError, UnsupportedImageError
from tango_server.conversion.files.roots import Roots
from tango_server.conversion.hdf5.open_files import close_all, keep_open, open_files
from tests.unit.tango_server.conversion.hdf5.reading import MADE, check, frames, read

WRITER = """
import sys
import h5py, numpy as np
path, frames_a_chunk = sys.argv[1], int(sys.argv[2])
file = h5py.File(path, "w", libver="latest")
data = file.create_dataset("entry/data/data", (0, 8, 8), "u2", maxshape=(None, 8, 8), chunks=(frames_a_chunk, 8, 8),
                           compression="gzip")
file.swmr_mode = True
for line in sys.stdin:
    match line.split():
        case ["append", value]:
            data.resize(len(data) + 1, axis=0)
            data[-1] = int(value)
            data.flush()
        case ["room", frames]:
            data.resize(int(frames), axis=0)
            data.flush()
        case ["write", index, value]:
            data[int(index)] = int(value)
            data.flush()
        case ["close"]:
            file.close()
    print("done", flush=True)
"""
REWRITE = """
import sys
import h5py, numpy as np
with h5py.File(sys.argv[1], sys.argv[3]) as file:
    if "data" not in file:
        file["data"] = np.zeros((2, 8, 8), "u2")
    file["data"][...] = int(sys.argv[2])
"""


class Writer:
    """A detector that appends frames in its own process."""

    def __init__(self, commands: IO[str], answers: IO[str]) -> None:
        self._commands, self._answers = commands, answers

    def do(self, command: str) -> None:
        self._commands.write(f"{command}\n")
        self._commands.flush()
        assert self._answers.readline() == "done\n"


@contextmanager
def writer(path: Path, frames_a_chunk: int = 1) -> Iterator[Writer]:
    arguments = [sys.executable, "-c", WRITER, str(path), str(frames_a_chunk)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        found = Writer(process.stdin, process.stdout)
        found.do("start")
        yield found
        process.stdin.close()
        assert process.wait(20) == 0


def rewrite(path: Path, value: int, mode: str = "w") -> None:
    subprocess.run([sys.executable, "-c", REWRITE, str(path), str(value), mode], check=True, timeout=60)


@pytest.fixture
def _kept() -> Iterator[None]:
    keep_open()
    yield
    keep_open(0)


@pytest.mark.usefixtures("_kept")
def test_growing_file_is_read_while_its_writer_appends(tmp_path: Path) -> None:
    path = tmp_path / "grows.h5"
    with writer(path) as detector:
        assert check(path, 0).state == "incomplete"
        assert check(path).problem == "/entry/data/data has no frame yet"  # else no job would be made for the file
        for value in range(3):
            detector.do(f"append {value}")
            assert check(path, value).proof
            assert np.all(read(path, value).image == value)
            assert check(path, value + 1).state == "incomplete"
        assert (check(path).frames, check(path).proof) == (3, "")
        detector.do("close")
        assert np.all(read(path, 2).image == 2)


@pytest.mark.usefixtures("_kept")
def test_room_for_a_whole_chunk_does_not_prove_its_frames(tmp_path: Path) -> None:
    path = tmp_path / "grows.h5"
    with writer(path, frames_a_chunk=2) as detector:
        detector.do("append 1")
        detector.do("room 2")  # the chunk has an address, and its second frame is not written
        assert [(check(path, index).state, check(path, index).proof) for index in (0, 1)] == [("complete", "")] * 2
        assert check(path, 2).state == "incomplete"
        detector.do("room 4")
        detector.do("write 2 3")
        assert check(path, 1).proof
        detector.do("close")


@pytest.mark.usefixtures("_kept")
def test_frames_of_an_unfinished_chunk_are_not_proven(tmp_path: Path) -> None:
    path = tmp_path / "grows.h5"
    with writer(path, frames_a_chunk=2) as detector:
        for value in range(3):
            detector.do(f"append {value}")
        assert [bool(check(path, index).proof) for index in range(3)] == [True, True, False]
        assert np.all(read(path, 2).image == 2)
        detector.do("close")


@pytest.mark.usefixtures("_kept")
@pytest.mark.parametrize("mode", ["w", "r+"])
def test_file_that_is_rewritten_is_read_anew(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "again.h5"
    rewrite(path, 1)
    assert np.all(read(path, 1).image == 1)
    before = check(path, 1).identity
    rewrite(path, 2, mode)  # also shows that a kept handle does not stop a writer
    assert np.all(read(path, 1).image == 2)
    assert check(path, 1).identity != before


@pytest.mark.usefixtures("_kept")
def test_source_of_a_virtual_data_set_that_changes(tmp_path: Path) -> None:
    rewrite(tmp_path / "source.h5", 1)
    layout = h5py.VirtualLayout((2, 8, 8), "u2")
    layout[:] = h5py.VirtualSource("source.h5", "data", (2, 8, 8))
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    state = check(tmp_path / "master.h5", 0)
    assert np.all(read(tmp_path / "master.h5", 0).image == 1)
    rewrite(tmp_path / "source.h5", 2, "r+")
    assert np.all(read(tmp_path / "master.h5", 0).image == 2)
    assert check(tmp_path / "master.h5", 0).identity != state.identity


@pytest.mark.usefixtures("_kept")
def test_only_a_few_files_are_kept(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.h5" for number in range(12)]
    for path in paths:
        path.write_bytes((MADE / "04_eiger_2d.h5").read_bytes())
        read(path)
    with open_files(Roots()) as files:
        handles = [files.open(path) for path in paths]
    assert sum(bool(each.file.id) for each in handles) == 8
    close_all()
    assert not any(each.file.id for each in handles)


def test_nothing_is_kept_unless_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes((MADE / "04_eiger_2d.h5").read_bytes())
    read(path)
    with h5py.File(path, "r+") as file:  # with locks
        file.attrs["changed"] = True
        assert check(path).frames == 1


@pytest.mark.usefixtures("_kept")
def test_ten_frames_a_chunk_are_read_in_any_order(tmp_path: Path) -> None:
    import hdf5plugin

    stack = frames(25)
    for name, filters in {"bslz4": dict(hdf5plugin.Bitshuffle()), "gzip": {"compression": "gzip"}}.items():
        path = tmp_path / f"{name}.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("data", data=stack, chunks=(10, 32, 48), **filters)
        for index in (0, 9, 10, 3, 24, 20, 11):
            np.testing.assert_array_equal(read(path, index).image, stack[index])


@pytest.mark.parametrize("module", ["h5py", "hdf5plugin"])
def test_missing_extra_is_named(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UnsupportedImageError, match=f"{module} is not installed.*formats"):
        check(MADE / "04_eiger_2d.h5")


def test_missing_filter_is_named(tmp_path: Path) -> None:
    path = tmp_path / "filter.h5"
    content = (MADE / "09_chunks_gzip.h5").read_bytes()
    with h5py.File(path, "w") as file:
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_chunk((1, 32, 48))
        layout.set_filter(4242, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((1, 32, 48))
        data_set = h5py.h5d.create(file.id, b"data", h5py.h5t.STD_U16LE, space, dcpl=layout)
        data_set.write_direct_chunk((0, 0, 0), content[:64])
    with pytest.raises(UnsupportedImageError, match="filter 4242"):
        check(path, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="the library of h5py is not found elsewhere")
def test_damaged_metadata_of_a_swmr_file_end_in_time(tmp_path: Path) -> None:
    content = bytearray((MADE / "12_rest" / "crashed_swmr.h5").read_bytes())
    place = content.rindex(b"OHDR")
    content[place + 10] ^= 255
    (tmp_path / "damaged.h5").write_bytes(content)
    state = check(tmp_path / "damaged.h5", 0)
    assert (state.state, "metadata checksum" in state.problem) == ("incomplete", True)


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "no.h5", tmp_path):
        with pytest.raises(ConversionError, match=path.name):
            read(path, 0)


@pytest.mark.skipif(os.name == "nt", reason="symbolic links")
def test_links_of_a_file_in_a_store_are_beside_its_link(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "source.h5").write_bytes((MADE / "04_eiger_2d.h5").read_bytes())
    with h5py.File(tmp_path / "store" / "x1", "w") as file:
        file["entry/data/data"] = h5py.ExternalLink("source.h5", "entry/data/data_000001")
    (tmp_path / "run.h5").symlink_to(tmp_path / "store" / "x1")
    np.testing.assert_array_equal(read(tmp_path / "run.h5", 0, Roots.of([tmp_path])).image, frames(1)[0])
