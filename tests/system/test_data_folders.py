"""Nothing of ours imports from the folder that it works in, where frames lie, and whatever else people put there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tango

from tango_server.client.local_server import LocalServer
from tests.system.waiting import reports, submit

MODULES = ("signal", "socket", "pickle", "selectors", "numpy", "tifffile", "cv2", "tango", "tango_server", "site")


@pytest.fixture
def among_frames(root: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory in which modules lie that tell that they were imported, and a frame."""
    folder = root / "raw"
    folder.mkdir(exist_ok=True)
    for name in MODULES:
        (folder / f"{name}.py").write_text(
            f"open({str(root / 'imported')!r}, 'a').write({name!r})\nraise SystemExit(9)"
        )
    shutil.copy(data / "qxrd_f32_64.tif", folder / "a.tif")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    return folder


@pytest.mark.long
def test_a_server_that_works_in_a_folder_of_data_converts(among_frames: Path, root: Path, tmp_path: Path) -> None:
    with LocalServer(root, tmp_path / "state", ["--set", "numworkers=1"]) as server:
        proxy = tango.DeviceProxy(server.address)
        answer = submit(proxy, {"source": str(among_frames / "a.tif")})
        assert [report["outcome"] for report in reports(proxy, answer)] == ["converted"]
    assert not (root / "imported").exists()


@pytest.mark.parametrize("program", [["petif"], [sys.executable, "-m", "tango_server"]], ids=["petif", "python -m"])
def test_a_command_in_a_folder_of_data_converts(program: list[str], among_frames: Path, root: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if program[0] == "petif" and shutil.which("petif", path=path) is None:
        pytest.skip("the package is not installed")
    if len(program) > 1:  # what Python itself imports first is up to it
        for name in MODULES:
            if name in sys.stdlib_module_names or name == "tango_server":
                (among_frames / f"{name}.py").unlink()
    ended = subprocess.run(
        [*program, "convert", "a.tif", "--workers", "2"],
        env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert (root / "processed" / "a.tif").exists()
    assert not (root / "imported").exists()


@pytest.mark.long
def test_a_root_that_is_a_link_is_what_the_link_leads_to_now(tmp_path: Path, data: Path) -> None:
    link = tmp_path / "current"
    for name in ("first", "second"):
        (tmp_path / name / "raw").mkdir(parents=True)
        shutil.copy(data / "qxrd_f32_64.tif", tmp_path / name / "raw" / f"{name}.tif")
    link.symlink_to(tmp_path / "first")
    with LocalServer(link, tmp_path / "state", ["--set", "numworkers=1"]) as server:
        proxy = tango.DeviceProxy(server.address)
        for name in ("first", "second"):
            link.unlink()
            link.symlink_to(tmp_path / name)
            proxy.Init()
            answer = submit(proxy, {"source": str(link / "raw" / f"{name}.tif")})
            assert [report["outcome"] for report in reports(proxy, answer)] == ["converted"], answer
            assert (tmp_path / name / "processed" / f"{name}.tif").exists()
