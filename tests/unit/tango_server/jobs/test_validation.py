"""From a request to a job, or to a refusal that says what to do."""

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tango_server.conversion.files.frame_location import FrameLocation
from tango_server.conversion.files.path_map import PathMap
from tango_server.conversion.files.roots import Roots
from tango_server.jobs.ledger.booking import Booked
from tango_server.jobs.ledger.database import Database
from tango_server.jobs.ledger.history import History
from tango_server.jobs.ledger.ledger import Ledger
from tango_server.jobs.validation import explain, job_for
from tango_server.messages import FrameRequest, RefusedRequest, ReportsQuery
from tango_server.recipe import Recipe
from tests.conftest import DATA

NOW = 1_700_000_000.0
XDI = Recipe.preset("xdi")
IN_PLACE = {"mode": "in_place"}
UNDECODABLE = os.fsdecode(b"M\xfcller.tif")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a folder of raw frames; beside it a folder outside of the root, and links into and out of it."""
    root = tmp_path.resolve() / "data"
    for folder in (root / "raw", root / "elsewhere", tmp_path / "outside"):
        folder.mkdir(parents=True)
        (folder / "frame.tif").write_bytes((DATA / "qxrd_f32_64.tif").read_bytes())
    (root / "raw" / "leak.tif").symlink_to(tmp_path / "outside" / "frame.tif")
    (root / "current").symlink_to(root / "raw", target_is_directory=True)
    return root


@pytest.fixture
def roots(root: Path) -> Roots:
    return Roots.of([root])


REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "recipe of a wrong value": (
        {"recipe": {"rotation": 45}},
        ["ROOT/raw/frame.tif", "recipe.rotation: ", "got 45", "0, 90, 180 or 270", "Correct it"],
    ),
    "unknown key of a recipe": (
        {"recipe": {"rotate": 90}},
        ["ROOT/raw/frame.tif", "recipe.rotate: unknown name", "Correct it"],
    ),
    "unknown key": ({"sauce": "x"}, ["ROOT/raw/frame.tif", "sauce: unknown name", "Correct it"]),
    "unknown mode": (
        {"recipe": {"output": {"mode": "upside_down"}}},
        ["recipe.output", "upside_down", "'new', 'in_place'", "Correct it"],
    ),
    "two faults": ({"stream": 5, "seq_num": "x"}, ["stream: ", "got 5", "seq_num: ", "got 'x'", "Correct it"]),
    "no source": ({"source": ...}, ["(no source)", "source: field required", "Correct it"]),
    "empty source": ({"source": ""}, ["(no source)", "source: ", "got ''", "at least 1 character"]),
    "null as source": ({"source": None}, ["(no source)", "source: ", "got None", "valid string"]),
    "number as source": ({"source": 5}, ["source: ", "got 5", "valid string", "Correct it"]),
    "name that is no text": (
        {"source": f"ROOT/raw/{UNDECODABLE}"},
        [r"ROOT/raw/M\udcfcller.tif", "not UTF-8", "Rename the file"],
    ),
    "empty key": ({"key": ""}, ["ROOT/raw/frame.tif", "key: ", "got ''", "at least 1 character", "Correct it"]),
    "empty run": ({"run_uid": ""}, ["ROOT/raw/frame.tif", "run_uid: ", "got ''", "at least 1 character"]),
    "key that is no text": ({"key": "\udcfc"}, ["ROOT/raw/frame.tif", "key: ", r"got '\udcfc'", "Correct it"]),
    "stream that is no text": ({"stream": "\udcfc"}, ["ROOT/raw/frame.tif", "stream: ", r"got '\udcfc'"]),
    "run that is no text": ({"run_uid": "\udcfc"}, ["ROOT/raw/frame.tif", "run_uid: ", r"got '\udcfc'"]),
    "key of the request that is no text": ({"\udcfc": 1}, [r"got '\udcfc'", "Correct it"]),
    "number too large for the ledger": ({"seq_num": 2**63}, ["seq_num: ", "got 9223372036854775808", "less than"]),
    "negative number": ({"seq_num": -1}, ["seq_num: ", "got -1", "greater than or equal to 0"]),
    "relative path": ({"source": "raw/frame.tif"}, ["raw/frame.tif: a relative path", "Give an absolute path"]),
    "file outside of the roots": (
        {"source": "OUTSIDE/frame.tif"},
        ["OUTSIDE/frame.tif", "outside the folders that may be read", "(ROOT)", "read_roots"],
    ),
    "way out by dots": ({"source": "ROOT/raw/../../outside/frame.tif"}, ["outside the folders that may be read"]),
    "way out by a link": ({"source": "ROOT/raw/leak.tif"}, ["ROOT/raw/leak.tif", "may be read", "read_roots"]),
    "path with a NUL": ({"source": "ROOT/raw/a\0.tif"}, [r"character '\x00'", "Rename the file"]),
    "no folder called raw": (
        {"source": "ROOT/elsewhere/frame.tif"},
        ["ROOT/elsewhere/frame.tif", "no folder named 'raw'", "'processed'", "output folder"],
    ),
    "output outside of the roots": (
        {"recipe": {"output": {"mode": "new", "folder": "OUTSIDE"}}},
        ["OUTSIDE/frame.tif", "may be written", "(ROOT)", "write_roots"],
    ),
    "output on the source": (
        {"recipe": {"output": {"mode": "new", "folder": "ROOT/raw"}}},
        ["ROOT/raw/frame.tif", "the source itself", "another output folder"],
    ),
    "template with an unknown field": (
        {"recipe": {"output": {"mode": "new", "template": "{sample}.tif"}}, "metadata": {"temperature": 300}},
        ["ROOT/raw/frame.tif", "no field 'sample'", "it has run, seq_num, stem, temperature", "Correct the template"],
    ),
    "template that leaves its folder": (
        {"recipe": {"output": {"mode": "new", "template": "{sample}.tif"}}, "metadata": {"sample": "../a"}},
        ["ROOT/raw/frame.tif", "'../a.tif'", "no separators", "Correct the template"],
    ),
    "frame of an HDF5 file outside of the roots": (
        {"source": "OUTSIDE/run.h5::/entry/data", "frame": 3},
        ["OUTSIDE/run.h5: outside the folders that may be read", "read_roots"],
    ),
    "way out by dots before a data set": (
        {"source": "ROOT/raw/../../outside/run.h5::/entry"},
        ["outside the folders that may be read"],
    ),
    "data set with a line break": (
        {"source": "ROOT/raw/run.h5::/entry\ndata"},
        [r"/entry\ndata: the path has the control character '\n'", "Rename the file"],
    ),
    "negative index of a frame": ({"source": "ROOT/raw/run.h5", "frame": -1}, ["frame: ", "got -1"]),
    "index of a frame that is no number": ({"source": "ROOT/raw/run.h5", "frame": "all"}, ["frame: ", "got 'all'"]),
    "frame of an HDF5 file in place": (
        {"source": "ROOT/raw/run.h5::/entry/data", "frame": 3, "recipe": {"output": IN_PLACE}},
        ["ROOT/raw/run.h5::/entry/data frame 3: cannot", "never converted in place", "Convert to new files"],
    ),
    "CBF in place": (
        {"source": "ROOT/raw/a.cbf", "recipe": {"output": IN_PLACE}},
        ["ROOT/raw/a.cbf: cannot convert in place: the file is not a TIFF", "Convert to new files"],
    ),
    "in place for a run": (
        {"run_uid": "run-1", "recipe": {"output": IN_PLACE}},
        ["ROOT/raw/frame.tif", "in place", "the run's documents", "set allow_in_place"],
    ),
}  # fmt: skip


def placed(value: Any, root: Path) -> Any:
    """Put the real folders into a request or an expectation."""
    if isinstance(value, dict):
        return {name: placed(one, root) for name, one in value.items() if one is not ...}
    if isinstance(value, str):
        return value.replace("ROOT", str(root)).replace("OUTSIDE", str(root.parent / "outside"))
    return value


def request(root: Path, **fields: Any) -> dict[str, Any]:
    return placed({"source": "ROOT/raw/frame.tif", **fields}, root)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("fields", "words"), REFUSED.values(), ids=REFUSED)
def test_refusal_names_file_fault_and_fix_and_is_booked_for_its_run(
    fields: dict[str, Any], words: list[str], root: Path, roots: Roots, history: History, ledger: Ledger
) -> None:
    job = job_for(request(root, **fields), XDI, roots, NOW)
    assert job.refusal is not None
    assert job.refusal.outcome == "failed"
    for word in words:
        assert placed(word, root) in job.refused
    job = job_for(request(root, **{"run_uid": "run-1", **fields}), XDI, roots, NOW)
    assert job.refusal is not None
    assert RefusedRequest(source=str(job.source), reason=job.refused).model_dump_json()
    booked = Booked(job.job_id, str(job.source), new=True)
    assert ledger.accept([job], ["run-1"]) == [booked]
    assert ledger.pending() == 0
    assert history.run_statistics("run-1").failed == (job.request.run_uid == "run-1")


@pytest.mark.parametrize("fields", [{"recipe": {"rotation": 45}}, {"source": "raw/frame.tif"}], ids=["field", "path"])
def test_refused_frame_of_a_run_is_one_failed_frame_of_it(
    fields: dict[str, Any], root: Path, roots: Roots, history: History, ledger: Ledger
) -> None:
    raw = request(root, run_uid="run-1", stream="primary", seq_num=3, key="frame-1", **fields)
    job = job_for(raw, XDI, roots, NOW)
    ledger.accept([job])
    ledger.accept([job_for(raw, XDI, roots, NOW)])
    statistics = history.run_statistics("run-1")
    assert job.refusal is not None
    assert (job.refusal.job_id, job.refusal.source) == (job.job_id, raw["source"])
    assert (job.refusal.run_uid, job.refusal.stream, job.refusal.seq_num) == ("run-1", "primary", 3)
    assert job.refusal.finished == job.refusal.accepted
    assert (statistics.submitted, statistics.failed, statistics.pending) == (1, 1, 0)


def test_an_invalid_origin_is_not_booked(root: Path, roots: Roots) -> None:
    job = job_for(request(root, run_uid="run-1", stream=5, seq_num="x", key=["k"]), XDI, roots, NOW)
    assert job.refusal is not None
    assert (job.refusal.run_uid, job.refusal.stream, job.refusal.seq_num) == ("run-1", None, None)
    assert job.request.key is None


def test_valid_request_becomes_a_job_with_its_fields(root: Path, roots: Roots) -> None:
    raw = request(root, key="frame-1", run_uid="run-1", stream="primary", seq_num=3, metadata={"exposure": 0.5})
    job = job_for(raw, XDI, roots, NOW)
    assert job.refusal is None
    assert (job.request.key, job.request.metadata) == ("frame-1", {"exposure": 0.5})
    assert (job.request.run_uid, job.request.stream, job.request.seq_num) == ("run-1", "primary", 3)
    assert len({job_for(raw, XDI, roots, NOW).job_id for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("written", "below", "name"),
    [
        ("ROOT/raw/frame.tif", "", "frame.tif"),
        ("ROOT/current/frame.tif", "", "frame.tif"),
        ("ROOT/elsewhere/../raw/frame.tif", "", "frame.tif"),
        ("ROOT/raw/later/frame-00002.tif", "", "later/frame-00002.tif"),
        ("ROOT/raw/frame.tif", "raw", "frame.tif"),
    ],
    ids=["plain", "link", "dots", "does not exist yet", "root called raw"],
)
def test_paths_are_resolved_before_the_path_rule_is_applied(written: str, below: str, name: str, root: Path) -> None:
    job = job_for(request(root, source=written), XDI, Roots.of([root / below]), NOW)
    assert job.refusal is None
    assert (job.source, job.output) == (root / "raw" / name, root / "processed" / name)


def test_a_template_names_the_output_after_the_frame(root: Path, roots: Roots) -> None:
    recipe = {"output": {"mode": "new", "template": "{sample}_{run}_{seq_num:03d}"}}
    raw = request(root, recipe=recipe, run_uid="run-1", seq_num=7, metadata={"sample": "CeO2"})
    assert job_for(raw, XDI, roots, NOW).output == root / "processed" / "CeO2_run-1_007.tif"


@pytest.mark.parametrize(
    ("source", "frame", "location", "name"),
    [
        ("ROOT/current/run.h5::/entry/data", 7, FrameLocation(Path("run.h5"), "/entry/data", 7), "run_00007.tif"),
        (r"Y:\raw\run.h5::/entry/data", 0, FrameLocation(Path("run.h5"), "/entry/data", 0), "run_00000.tif"),
        ("ROOT/raw/run.nxs", None, FrameLocation(Path("run.nxs")), "run.tif"),
        ("ROOT/raw/a.edf", 2, FrameLocation(Path("a.edf"), index=2), "a_00002.tif"),
        ("ROOT/raw/frame.tif", None, FrameLocation(Path("frame.tif")), "frame.tif"),
    ],
)
def test_a_job_has_the_location_of_its_frame(
    source: str, frame: int | None, location: FrameLocation, name: str, root: Path, roots: Roots
) -> None:
    paths = PathMap.of([rf"Y:\ -> {root}"])
    job = job_for(request(root, source=source, frame=frame), XDI, roots, NOW, paths)
    file = root / "raw" / location.file
    assert job.refusal is None
    assert (job.source, job.output) == (file, root / "processed" / name)
    assert (job.data_set, job.location) == (location.data_set, replace(location, file=file))
    failed = job.failed("why", NOW)
    assert (failed.source, failed.frame) == (job.location.path, frame)


def test_recipe_of_a_request_replaces_the_servers_as_a_whole(root: Path, roots: Roots) -> None:
    assert job_for(request(root), XDI, roots, NOW).recipe == XDI
    assert job_for(request(root, recipe=None), XDI, roots, NOW).recipe == XDI
    assert job_for(request(root, recipe={"rotation": 90}), XDI, roots, NOW).recipe == Recipe(rotation=90)


@pytest.mark.parametrize(
    "fields",
    [
        {"recipe": {"output": IN_PLACE}},
        {"run_uid": "run-1", "recipe": {"output": {**IN_PLACE, "allow_in_place": True}}},
    ],
    ids=["of no run", "of a run that allows it"],
)
def test_in_place_is_accepted(fields: dict[str, Any], root: Path, roots: Roots) -> None:
    job = job_for(request(root, **fields), XDI, roots, NOW)
    assert job.refusal is None
    assert job.output == job.source


def test_in_place_for_a_run_is_refused_in_the_servers_recipe_too(root: Path, roots: Roots) -> None:
    own = Recipe.model_validate({"output": IN_PLACE})
    job = job_for(request(root, run_uid="run-1"), own, roots, NOW)
    assert job.refusal is not None
    assert "allow_in_place" in job.refused


def test_all_faults_are_explained_in_one_line() -> None:
    with pytest.raises(ValidationError) as caught:
        FrameRequest.model_validate({"source": "a.tif", "seq_num": "x", "recipe": {"flip": "2", "bits": 8}})
    text = explain(caught.value)
    assert "\n" not in text
    for place in ("seq_num: ", "got 'x'", "recipe.flip: ", "got '2'", "recipe.bits: unknown name"):
        assert place in text


TEXT = st.text(st.characters(), max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(list(FrameRequest.model_fields)) | TEXT
RUN_UIDS = (f"run-{number}" for number in count())


@pytest.fixture(scope="module")
def booking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Database]]:
    folder = tmp_path_factory.mktemp("booking").resolve()
    database = Database(folder / "ledger.sqlite")
    yield folder, database
    database.close()


@settings(max_examples=50)
@given(fields=st.dictionaries(NAMES, VALUES, max_size=4))
def test_whatever_comes_over_the_wire_never_raises(fields: dict[str, Any], booking: tuple[Path, Database]) -> None:
    folder, database = booking
    history = History(database)
    run_uid = next(RUN_UIDS)
    raw = {"source": f"{folder}/raw/frame.tif", "run_uid": run_uid, **fields}
    job = job_for(raw, XDI, Roots.of([folder]), NOW)
    (booked,) = Ledger(database).accept([job], [run_uid])
    report = job.refusal
    assert history.run_statistics(run_uid).submitted == (booked.new and job.request.run_uid == run_uid)
    found, pending = history.reports(ReportsQuery(job_ids=[booked.job_id]))
    assert [one.model_dump_json() for one in found] == ([] if report is None else [report.model_dump_json()])
    assert pending == (report is None)


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        ({"run_uid": "3f9c2a1b", "source": "scan-{:05d}.tif"}, "scan_3f9c2a1b/scan_1_{}.esperanto"),
        ({"run_uid": "3f9c2a1b", "source": "scan.h5", "frame": True}, "scan_3f9c2a1b/scan_1_{}.esperanto"),
        ({"source": "scan-{:05d}.tif"}, "scan/scan_1_{}.esperanto"),
    ],
)
def test_esperanto_groups_are_numbered_one_by_one(
    root: Path, roots: Roots, request_: dict[str, Any], names: str
) -> None:
    """CrysAlis opens no scan with gaps between its numbers."""
    recipe = Recipe.preset("esperanto", combine={"of": {"every": 2}, "method": "sum"})
    found = []
    for number in range(6):
        place = {"group": f"run/pe_image/primary/{number // 2}", "member": number % 2, "seq_num": number + 1}
        frame = {"frame": number} if "frame" in request_ else {}
        source = str(root / "raw" / request_["source"].format(number + 1))
        job = job_for({**request_, **place, **frame, "source": source}, recipe, roots, NOW)
        assert not job.refused
        found.append(job.output.relative_to(root / "processed").as_posix())
    assert found[::2] == [names.format(number) for number in (1, 2, 3)]


def test_esperanto_groups_of_streams_and_without_a_dark_have_names_of_their_own(root: Path, roots: Roots) -> None:
    recipe = Recipe.preset("esperanto", combine={"of": {"every": 2}, "method": "sum"})
    found = []
    for source, frame in (("scan-00001.tif", None), ("scan.h5", 0)):
        for stream, ending in (("primary", ""), ("primary", "/no-dark"), ("dark/field", "")):
            group = f"run/pe_image/{stream}/0{ending}"
            place = {"group": group, "member": 0, "seq_num": 1, "frame": frame, "run_uid": "3f9c2a1b", "stream": stream}
            job = job_for({"source": str(root / "raw" / source), **place}, recipe, roots, NOW)
            assert not job.refused
            found.append(job.output.relative_to(root / "processed").as_posix())
    names = [f"{name}_3f9c2a1b/{name}_1_1.esperanto" for name in ("scan", "scan_no_dark", "scan_dark_field")]
    assert found == names * 2
