"""What a client can not do with paths: a table of attacks on a real server, and what it leaves untouched."""

import hashlib
import json
import os
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tango
import tifffile

from tango_server.client.local_server import LocalServer
from tests.conftest import DATA
from tests.system.conftest import FAST, settings
from tests.system.waiting import all_done, reports, submit, until

Listing = dict[str, tuple[int, int, str]]
FRAME = DATA / "qxrd_f32_64.tif"
OUTSIDE = "outside the folders that may be"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of the one server, with frames, links and oddities in it; `outside` lies beside it."""
    base = tmp_path_factory.mktemp("attacks").resolve()
    root = base / "root"
    for folder in (root / "raw" / "scan", root / "state", base / "outside" / "deep"):
        folder.mkdir(parents=True)
    for path in (root / "raw/scan/a.tif", base / "outside/there.tif", base / "outside/deep/frame.tif"):
        shutil.copy(FRAME, path)
    (base / "outside" / "frame.tif.metadata").write_text("[metadata]\nsecret=1\n")
    links = {
        "raw/out": base / "outside", "raw/there.tif": base / "outside/there.tif",
        "raw/absent.tif": base / "outside/absent.tif", "raw/chain": root / "raw/out", "raw/loop": root / "raw/loop",
        "raw/proc": Path("/proc/self"), "raw/zero.tif": Path("/dev/zero"), "written": base / "outside",
    }  # fmt: skip
    for name, target in links.items():
        (root / name).symlink_to(target)
    (root / "raw" / "line\nbreak.tif").write_bytes(FRAME.read_bytes())
    return root


@pytest.fixture
def outside(root: Path) -> Iterator[Path]:
    """The tree that nothing may touch."""
    outside = root.parent / "outside"
    before = listing(outside)
    yield outside
    assert listing(outside) == before


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[LocalServer]:
    options = [*settings(*FAST, rf"path_maps=Y:\ -> {root}")]
    server = LocalServer(root, root / "state", options).start()
    yield server
    server.stop()


@pytest.fixture
def proxy(server: LocalServer, outside: Path) -> tango.DeviceProxy:
    """The one server, with nothing counted."""
    assert outside.is_dir()
    proxy = tango.DeviceProxy(server.address)
    all_done(proxy)
    proxy.ResetStats()
    return proxy


def scene(root: Path, name: str) -> Path:
    """Return a folder within the root for one test, with two frames in `raw/scan`."""
    (root / name / "raw" / "scan").mkdir(parents=True)
    for frame in ("a.tif", "b.tif"):
        shutil.copy(FRAME, root / name / "raw" / "scan" / frame)
    return root / name


def listing(folder: Path) -> Listing:
    """Return what is there: kind and rights, time, and a hash of the content."""
    found: Listing = {}
    for path in sorted([folder, *folder.rglob("*")]):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path)] = (status.st_mode, status.st_mtime_ns, hashlib.sha256(content).hexdigest())
    return found


def refusal(call: Callable[[], object]) -> str:
    """Return the reason and the text of the error that a call ends in."""
    with pytest.raises(tango.DevFailed) as caught:
        call()
    return f"{caught.value.args[0].reason}: {caught.value.args[0].desc}"


def attacks(root: Path) -> dict[str, str]:
    """Return paths that no server may open, with what it says of them."""
    base, omegas = root.parent, 1500 * "\u03a9/"
    mapped = [rf"Y:\..\..\{'etc'}\passwd", "Y:/raw/../../../etc/passwd", r"Y:\..\outside\there.tif"]
    leading_out = [
        f"{base}/outside/there.tif", f"{base}/outside/absent.tif", f"{base}/outside", "/etc/passwd", "/etc/shadow",
        "/dev/zero", "/dev/stdin", "/proc/self/environ", "/", f"{root}-2/a.tif", f"{root}/raw/there.tif",
        f"{root}/raw/absent.tif", f"{root}/raw/out/there.tif", f"{root}/raw/chain/deep/frame.tif",
        f"{root}/raw/proc/environ", f"{root}/raw/zero.tif", f"{root}/raw/../../outside/there.tif",
        f"{root}/raw/scan/../../../outside/there.tif", f"{root}/raw/out/../root/raw/scan/a.tif",
        f"{base}/outside/../root/raw/scan/a.tif", f"{base}/nothing/../root/raw/scan/a.tif",
        f"{root}/state/ledger.sqlite", f"{root}/state/server.log", r"Y:\raw\out\there.tif", "y:/state/ledger.sqlite",
    ]  # fmt: skip
    unfit = {
        f"{root}/raw/line\nbreak.tif": "control character ", f"{root}/raw/\x1b[31mred.tif": "control character ",
        f"{root}/raw/\u202efit.a": "control character ", f"{root}/raw/a\u2028b.tif": "control character ",
        f"{root}/raw/loop": "cannot be resolved", f"{root}/raw/{'n' * 256}.tif": "a name of 260 bytes",
        f"{root}/{omegas}x.tif": "a path of", "raw/scan/a.tif": "a relative path", "~/a.tif": "a relative path",
        "..": "a relative path", f"file://{root}/raw/scan/a.tif": "a relative path",
        r"Z:\raw\a.tif": "a Windows path", r"\\server\share\a.tif": "a Windows path",
        r"\\.\PhysicalDrive0": "a Windows path", r"Y:a.tif": "a Windows path",
        **dict.fromkeys(mapped, "contains '..'"), "Y:\\raw\\a\nb.tif": "control character ",
    }  # fmt: skip
    return {**dict.fromkeys(leading_out, OUTSIDE), **unfit}


def test_submit_never_leaves_the_roots(proxy: tango.DeviceProxy, root: Path) -> None:
    before = listing(root / "raw")
    table = {**attacks(root), f"{root}/raw/a\0.tif": "control character ", f"{root}/raw/{'x' * 5000}": "4096"}
    answer = submit(proxy, *({"source": path} for path in table))
    assert answer["jobs"] == []
    said = {path: refused["reason"] for path, refused in zip(table, answer["refused"], strict=True)}
    assert {path: reason for path, reason in said.items() if table[path] not in reason} == {}
    assert [reason for reason in said.values() if not reason.isprintable() or len(reason) > 2000] == []
    there, absent = (said[f"{root.parent}/outside/{name}.tif"] for name in ("there", "absent"))
    assert there.replace("there", "X") == absent.replace("absent", "X"), "it tells what is there"
    assert listing(root / "raw") == before
    assert not (root / "processed").exists()


def test_commands_of_the_ancestor_never_leave_the_roots(proxy: tango.DeviceProxy, root: Path) -> None:
    table = {path: words for path, words in attacks(root).items() if path.isascii()}
    commands: list[Callable[[str], object]] = [
        lambda path: proxy.AddFiles([path]), proxy.AddFolder, proxy.AddFileOrDir, proxy.TestOsExists,
        proxy.TestOsIsDir, proxy.TestOsIsFile,
    ]  # fmt: skip
    wrong = {}
    for path, words in table.items():
        for number, call in enumerate(commands):
            text = refusal(lambda call=call, path=path: call(path))
            if words not in text or not text.startswith("PETIF_"):
                wrong[number, path] = text
    assert wrong == {}
    assert proxy.NumProcessed == proxy.QueueLength == 0
    assert proxy.TestOsExists(r"y:\RAW\scan\a.tif".replace("RAW", "raw"))
    assert proxy.TestOsIsDir("Y:/raw")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("AddLoggingTarget", ["petif/converter/1", "file::{outside}/log"]),
        ("AddLoggingTarget", ["petif/converter/1", "FILE::{outside}/log"]),
        ("AddLoggingTarget", ["petif/converter/1", "file"]),
        ("AddLoggingTarget", ["petif/converter/1", "console::cout", "*", "file::{outside}/log"]),
        ("AddTelemetryLoggingEndpoints", ["petif/converter/1", "http://127.0.0.1:1"]),
        ("AddTelemetryTracingEndpoints", ["petif/converter/1", "http://127.0.0.1:1"]),
        ("RestartServer", None),
        ("Kill", None),
    ],
)
def test_tangos_own_device_writes_no_file_and_ends_no_server(
    command: str, words: list[str] | None, server: LocalServer, outside: Path
) -> None:
    administration = tango.DeviceProxy(tango.DeviceProxy(server.address).adm_name())
    argument = [word.format(outside=outside) for word in words] if words else None
    with pytest.raises(tango.DevFailed, match=r"not found|may not write files"):
        administration.command_inout(command, argument)
    assert administration.state() == tango.DevState.ON


def test_each_of_many_paths_is_checked(proxy: tango.DeviceProxy, root: Path) -> None:
    table = [path for path in attacks(root) if path.isascii()]
    frame = scene(root, "many") / "raw" / "scan" / "a.tif"
    proxy.AddFiles([*table, *[str(frame)] * 100])
    until(lambda: proxy.NumProcessed == len(table) + 1, "each name has its report")
    assert (proxy.StatisticsTotalFrames, proxy.NumFailed) == (1, len(table))


def test_folder_gives_no_frame_that_lies_elsewhere(proxy: tango.DeviceProxy, root: Path) -> None:
    proxy.AddFolder(str(root / "raw"))
    links = ["there.tif", "line\nbreak.tif"]  # the others lead to nothing, or to no file
    until(lambda: proxy.NumProcessed == len(links), "each is told of")
    assert proxy.NumFailed == len(links)
    assert sorted(proxy.FailedFiles) == sorted(str(root / "raw" / name).replace("\n", r"\n") for name in links)
    assert not (root / "processed").exists()


OUTPUTS: dict[str, tuple[dict[str, Any], str]] = {
    "folder outside": ({"folder": "BASE/outside"}, OUTSIDE),
    "folder behind a link": ({"folder": "BASE/root/written"}, OUTSIDE),
    "folder behind dots": ({"folder": "BASE/root/raw/../../outside"}, OUTSIDE),
    "the server's own folder": ({"folder": "BASE/root/state"}, OUTSIDE),
    "system folder": ({"folder": "/etc/cron.d"}, OUTSIDE),
    "relative folder": ({"folder": "out"}, "a relative path"),
    "line break": ({"folder": "BASE/root/out\nside"}, "control character "),
    "mapped folder": ({"folder": r"Y:\..\outside"}, "contains '..'"),
    "unmapped folder": ({"folder": r"C:\Windows"}, "a Windows path"),
    "long name": ({"folder": "BASE/root/" + "n" * 256}, "a name of 256 bytes"),
    "setuid": ({"file_mode": "4777"}, "file_mode"),
}
TEMPLATES: dict[str, tuple[str, str]] = {
    "dots": ("../{stem}.tif", "invalid file name"),
    "whole path": ("/tmp/{stem}.tif", "invalid file name"),
    "hidden file": (".{stem}", "invalid file name"),
    "metadata with dots": ("{sample}", "'../../outside/x.tif'"),
    "run with dots": ("{run}", "invalid file name"),
    "attribute": ("{stem.__class__}", "no field"),
    "item": ("{stem[0]}", "no field"),
    "position": ("{0}", "no field"),
    "width": ("{stem:>99999}", "too wide"),
    "long": ("{stem:>150}" * 2, "invalid file name"),
    "line break": ("{stem}\n", "invalid file name"),
}


def test_recipe_never_leads_outputs_out_of_the_roots(proxy: tango.DeviceProxy, root: Path) -> None:
    source = str(root / "raw/scan/a.tif")

    def placed(output: dict[str, Any]) -> dict[str, Any]:
        return {"output": {name: text.replace("BASE", str(root.parent)) for name, text in output.items()}}

    kept = proxy.Recipe
    for name, (output, words) in OUTPUTS.items():
        answer = submit(proxy, {"source": source, "recipe": placed(output)})
        assert words in answer["refused"][0]["reason"], name
        text = refusal(lambda output=output: proxy.SetRecipe(json.dumps(placed(output))))
        assert text.startswith(("PETIF_BadPath", "PETIF_BadArgument")), name
        assert words in text, name
    assert proxy.Recipe == kept
    for name, (template, words) in TEMPLATES.items():
        request = {
            "source": source, "recipe": {"output": {"template": template}}, "run_uid": "../../outside/x",
            "metadata": {"sample": "../../outside/x"},
        }  # fmt: skip
        answer = submit(proxy, request)
        assert words in answer["refused"][0]["reason"], name
    assert not (root / "processed").exists()
    written = {"output": {"folder": r"y:\made\mapped"}}
    (report,) = reports(proxy, submit(proxy, {"source": r"Y:\raw\scan\a.tif", "recipe": written}))
    assert report["output"] == str(root / "made" / "mapped" / "a.tif")


def test_irregular_files_fail_with_a_reason_and_block_nothing(
    proxy: tango.DeviceProxy, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = scene(root, "irregular") / "raw"
    (raw / "folder.tif").mkdir()
    os.mkfifo(raw / "fifo.tif")
    monkeypatch.chdir(raw)  # the path of a socket is short
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("socket.tif")
    expected = {"folder": "a folder, not", "fifo": "a FIFO, not", "socket": "cannot read"}
    try:
        os.mknod(raw / "device.tif", stat.S_IFCHR | 0o600, os.makedev(1, 5))
        (raw / "device.tif").open("rb").close()
        expected["device"] = "a device, not"
    except OSError:
        (raw / "device.tif").unlink(missing_ok=True)  # only root makes one, and not everywhere
    os.mkfifo(raw / "scan" / "a.tif.metadata")
    try:
        answer = submit(proxy, *({"source": str(raw / f"{name}.tif")} for name in expected))
        (good,) = reports(proxy, submit(proxy, {"source": str(raw / "scan/a.tif")}))
        assert (good["outcome"], good["sidecar"]) == ("converted", "absent")
        for report, words in zip(reports(proxy, answer), expected.values(), strict=True):
            assert report["outcome"] == "failed"
            assert words in report["reason"]
    finally:
        listener.close()
        (raw / "device.tif").unlink(missing_ok=True)


def exchange(path: Path, target: Path) -> None:
    path.rename(path.with_name(path.name + "-before"))
    path.symlink_to(target)


@pytest.mark.parametrize("what", ["raw", "raw/scan", "raw/scan/a.tif", "processed", "processed/scan"])
def test_link_put_in_the_way_of_an_accepted_frame_is_not_followed(
    proxy: tango.DeviceProxy, root: Path, outside: Path, what: str
) -> None:
    top = scene(root, f"exchanged-{what.replace('/', '-')}")
    scan = top / "raw" / "scan"
    (top / "processed" / "scan").mkdir(parents=True)
    in_place = {"output": {"mode": "in_place", "backup": True}}
    proxy.Pause()
    try:
        answer = submit(proxy, {"source": str(scan / "a.tif")}, {"source": str(scan / "b.tif"), "recipe": in_place})
        if what.endswith(".tif"):
            exchange(scan / "a.tif", outside / "there.tif")
            exchange(scan / "b.tif", outside / "there.tif")
        else:
            exchange(top / what, outside / "deep" if what.endswith("scan") else outside)
    finally:
        proxy.Resume()
    new, replaced = reports(proxy, answer)
    assert new["outcome"] == "failed"
    assert "symbolic link" in new["reason"]
    if what.startswith("processed"):  # that is not on the way of a frame that is converted in place
        assert replaced["outcome"] == "converted"
    else:
        assert replaced["outcome"] == "failed"
        assert "symbolic link" in replaced["reason"]


def own_server(base: Path, *assignments: str) -> LocalServer:
    return LocalServer(base, base / "state", [*settings(*FAST, *assignments)])


def test_frame_is_converted_where_accepted_though_its_root_moved(tmp_path: Path) -> None:
    base = tmp_path.resolve()
    for week, value in (("week-1", 1), ("week-2", 2)):
        (base / week / "raw").mkdir(parents=True)
        tifffile.imwrite(base / week / "raw" / "a.tif", np.full((4, 4), value, np.uint16))
    (base / "current").symlink_to(base / "week-1")
    with own_server(base, f"read_roots={base}/current") as server:
        proxy = tango.DeviceProxy(server.address)
        proxy.Pause()
        first = submit(proxy, {"source": f"{base}/current/raw/a.tif"})
        (base / "current").unlink()
        (base / "current").symlink_to(base / "week-2")
        second = submit(proxy, {"source": f"{base}/current/raw/a.tif"})
        proxy.Resume()
        done = [*reports(proxy, first), *reports(proxy, second)]
    assert [report["output"] for report in done] == [f"{base}/week-{number}/processed/a.tif" for number in (1, 2)]
    assert [int(tifffile.imread(report["output"])[0, 0]) for report in done] == [1, 2]


def test_new_folders_have_sane_rights_whatever_the_umask(tmp_path: Path) -> None:
    frame = scene(tmp_path.resolve(), "data") / "raw" / "scan" / "a.tif"
    server = own_server(tmp_path.resolve())
    before = os.umask(0)
    try:
        server.start()
    finally:
        os.umask(before)
    try:
        proxy = tango.DeviceProxy(server.address)
        (report,) = reports(proxy, submit(proxy, {"source": str(frame)}))
    finally:
        server.stop()
    for path in (Path(report["output"]), *Path(report["output"]).parents[:2]):
        assert not path.stat().st_mode & stat.S_IWOTH, path


def test_calls_that_bring_too_much_are_refused_with_the_limit(proxy: tango.DeviceProxy, root: Path) -> None:
    source = {"source": str(root / "raw/scan/a.tif")}
    deep = json.loads('{"a":' * 40 + "1" + "}" * 40)
    table = {
        "requests": (lambda: submit(proxy, *[{}] * 10_001), "at most 10000 items"),
        "text": (lambda: proxy.Submit(" " * (16 * 2**20 + 1)), "at most 16777216"),
        "nesting": (lambda: proxy.Submit("[" * 100_000), "nested too deeply"),
        "recipe": (lambda: proxy.SetRecipe('{"output":' * 5000), "nested too deeply"),
        "job ids": (lambda: proxy.GetReports(json.dumps({"job_ids": ["j"] * 10_001})), "at most 10000 items"),
        "cancel": (lambda: proxy.Cancel(json.dumps({"job_ids": ["j"] * 10_001})), "at most 10000 items"),
        "limit": (lambda: proxy.GetReports('{"run_uid": "r", "limit": 1000000}'), "less than or equal to 100000"),
        "run uid": (lambda: proxy.GetRunStatistics("r" * 513), "at most 512"),
        "paths": (lambda: proxy.AddFiles(["a"] * 100_001), "at most 100000"),
        "length of paths": (lambda: proxy.AddFiles(["a" * 2**20] * 17), "at most 16777216"),
        "faults": (lambda: proxy.SetRecipe(json.dumps({f"{n}{'k' * 900}": 1 for n in range(1000)})), "990 more errors"),
    }
    for name, (call, words) in table.items():
        text = refusal(call)
        assert words in text, name
        assert text.startswith(("PETIF_TooMuch", "PETIF_BadArgument")), name
        assert len(text) < 10_000, name
    answer = submit(
        proxy, {**source, "metadata": deep}, {**source, "metadata": {"a": "x" * 70_000}}, {**source, "key": "k" * 5000},
        {"source": "x" * 10**6},
    )  # fmt: skip
    words = ["more than 32 levels", "at most 65536", "at most 4608 characters", "at most 4096 characters"]
    for refused, word in zip(answer["refused"], words, strict=True):
        assert word in refused["reason"]
        assert len(refused["reason"]) < 2000
    assert proxy.NumProcessed == proxy.QueueLength == 0
    all_done(proxy)
