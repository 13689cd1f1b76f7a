"""What a session on another host asks the server about files: the frames of a folder, and which files are missing."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tango_server.client.client import Client, RequestRejectedError
from tango_server.client.local_server import LocalServer


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of the one server."""
    return tmp_path_factory.mktemp("finding").resolve()


@pytest.fixture(scope="module")
def client(base: Path) -> Iterator[Client]:
    with LocalServer(base, base / "state", ["--workers", "1"]) as server:
        yield Client(server.address)


@pytest.fixture
def root(base: Path) -> Path:
    """A folder for one test, with an empty `raw` in it."""
    root = base / uuid4().hex
    (root / "raw").mkdir(parents=True)
    return root


def fill(root: Path, data: Path, *names: str) -> list[str]:
    """Put frames into `raw`; return their paths."""
    (root / "raw" / "deeper").mkdir()
    first = shutil.copy(data / "qxrd_f32_64.tif", root / "raw" / "deeper" / "x.tif")
    for name in names:
        os.link(first, root / "raw" / name)
    return [str(root / "raw" / name) for name in sorted(names)]


def test_folder_is_listed_in_parts_in_name_order(client: Client, root: Path, data: Path) -> None:
    paths = fill(root, data, "b.tif", "a.TIFF", "\u03b2 \u00b5.tif", "c.tif")
    for name in ("a.dark.tif", "a.tif.metadata", ".b.tif"):
        (root / "raw" / name).touch()
    assert client.frames_in(str(root / "raw")).model_dump() == {"frames": paths, "more": False}
    assert client.frames_in(str(root / "raw"), after="b.tif").frames == paths[2:]
    query = json.dumps({"folder": str(root / "raw"), "limit": 3, "skip_dark": False})
    answer = json.loads(client._command("ListFolder", query))
    assert (len(answer["frames"]), answer["more"]) == (3, True)


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_undecodable_name_hides_no_other(client: Client, root: Path, data: Path) -> None:
    (path,) = fill(root, data, "a.tif")
    os.link(path, os.fsencode(root / "raw") + b"/\xff.tif")
    assert client.frames_in(str(root / "raw")).frames == [path]


def test_only_folders_below_the_roots_are_listed(client: Client, root: Path, data: Path) -> None:
    (path,) = fill(root, data, "a.tif")
    (root / "raw" / "link").symlink_to(root.parent.parent)
    for folder, words in (
        (path, "no such folder"),
        (str(root / "raw" / "nothing"), "no such folder"),
        ("/etc", "outside the folders"),
        (str(root / "raw" / "link"), "outside the folders"),
    ):
        with pytest.raises(RequestRejectedError, match=words):
            client.frames_in(folder)


def test_missing_files_are_reported_with_the_reason(client: Client, root: Path, data: Path) -> None:
    paths = fill(root, data, "a.tif", "\u03b2.tif")
    absent, folder, outside = str(root / "raw" / "\u03b3.tif"), str(root / "raw" / "deeper"), "/etc/passwd"
    missing = client.missing([absent, *paths, folder, outside])
    assert [lost.source for lost in missing] == [absent, folder, outside]
    for lost, words in zip(missing, ("no such file", "no such file", "outside the folders"), strict=True):
        assert words in lost.reason
    assert client.missing([]) == []
