"""Files of every format, good and bad, through a running server and through the shell: each has one right answer.

The files are described in tests/data/made/README.md.
"""

import json
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import fabio
import h5py
import hdf5plugin  # noqa: F401 - registers the filters
import numpy as np
import pytest
import tango
import tifffile
from numpy.typing import NDArray

from tests.system.conftest import Server, settings
from tests.system.waiting import all_done, submit

DATA = Path(__file__).parents[1] / "data" / "made"
Outcomes = dict[int | None, str]
"""By index of the frame: "" if it is converted, else a part of the reason."""

ANSWERS: dict[str, Outcomes] = {
    "01_eiger_missing/run_master.h5": {
        **dict.fromkeys((0, 1, 2, 3, 8, 9, 10), ""),
        **dict.fromkeys((4, 5, 6, 7), "run_data_000002.h5"),
    },
    "02_lambda_uneven/l1_test_00002_m01.nxs": {**dict.fromkeys(range(4), ""), 4: "l1_test_00002_m02.nxs"},
    "04_eiger_2d.h5": {0: ""},
    "04_eiger_4d_thresholds.h5": {None: "2 thresholds: name one"},
    "04_eiger_4d_thresholds.h5::/entry/data/data_000001[:,1]": {0: "", 1: ""},
    "04_grid_4d.h5": dict.fromkeys(range(6), ""),
    "05_depth16_in_uint32.h5": {0: "", 1: ""},
    "06_int16_sum.h5": dict.fromkeys(range(10), ""),
    "07_vds/gaps_vds.h5": {0: "", 1: "", 2: "nothing is mapped", 3: "nothing is mapped", 4: "b.h5", 5: "b.h5"},
    "09_chunks_bslz4.h5": {0: "", 1: "does not decode", 2: "never written", 3: ""},
    "09_chunks_gzip.h5": {0: "", 1: "does not decode", 2: "never written"},
    "09_early_allocated.h5": {0: "", 1: "", 2: ""},
    "10_cbf/good.cbf": {None: ""},
    "10_cbf/no_md5_xds.cbf": {None: ""},
    "10_cbf/small_4x3.cbf": {None: ""},
    "10_cbf/wrong_md5.cbf": {None: "MD5 differs"},
    "10_cbf/truncated.cbf": {None: "should end at byte"},
    "10_cbf/packed.cbf": {None: "x-CBF_PACKED"},
    "11_edf/three_blocks.edf": {0: "", 1: "", 2: ""},
    "11_edf/last_cut.edf": {0: "", 1: "", 2: "should end at byte"},
    "11_edf/padded_512.edf": {None: ""},
    "11_edf/header_size_lies.edf": {None: ""},
    "12_rest/crashed_swmr.h5": {0: "", 1: ""},
    "12_rest/crashed_writer.h5": {None: "left open by its writer"},
    "12_rest/dark_beside_data.h5": {0: "", 1: ""},
    "12_rest/huge_shape.h5": {None: "1000000"},
    "12_rest/crash_hdf5_2.0.0.h5": {None: "crash"},
    "12_rest/two_candidates.h5": {None: "may be meant"},
    "12_rest/two_candidates.h5::/entry/data2/data": {0: "", 1: ""},
    "12_rest/not_hdf5.h5": {None: "not_hdf5.h5"},
    "12_rest/types.h5::/big_endian": {0: ""},
    "12_rest/types.h5::/uint64": {0: ""},
    "12_rest/types.h5::/float16": {0: ""},
    "12_rest/types.h5::/null": {None: "/null"},
    "12_rest/types.h5::/strings": {None: "/strings"},
    "12_rest/types.h5::/boolean": {None: "/boolean"},
    "12_rest/types.h5::/no_frames": {},
}
MASKED = {"01_eiger_missing/run_master.h5": 34, "05_depth16_in_uint32.h5": 96}
OVEREXPOSED = {
    ("01_eiger_missing/run_master.h5", 3): 1,
    ("05_depth16_in_uint32.h5", 0): 1,
    ("10_cbf/good.cbf", None): 2,
}
STACKS = {
    "04_grid_4d.h5": "/entry/data/data",
    "06_int16_sum.h5": "/entry/data/data",
    "05_depth16_in_uint32.h5": "/entry/data/data",
    "09_chunks_bslz4.h5": "/entry/data/data",
    "12_rest/dark_beside_data.h5": "/exchange/data",
    "12_rest/two_candidates.h5::/entry/data2/data": "/entry/data2/data",
}


@pytest.fixture
def raw(root: Path) -> Path:
    """The made files, in `raw`."""
    shutil.copytree(DATA, root / "raw", dirs_exist_ok=True)
    return root / "raw"


def outcomes(raw: Path, found: list[dict[str, Any]]) -> dict[str, dict[int | None, dict[str, Any]]]:
    """Return the reports by source and index of the frame, without those of files that became one job a frame."""
    result: dict[str, dict[int | None, dict[str, Any]]] = defaultdict(dict)
    for report in found:
        source = report["source"].removeprefix(f"{raw}/")
        if report.get("frames") is None:
            result[source][report.get("frame")] = report
        else:
            result[source] = result[source]
    return result


def require_right(
    raw: Path, found: dict[str, dict[int | None, dict[str, Any]]], sources: Iterable[str] = tuple(ANSWERS)
) -> None:
    wrong = []
    for source in sources:
        expected = ANSWERS[source]
        got = {index: report["reason"] for index, report in found[source].items() if report["outcome"] == "failed"}
        converted = {index: "" for index, report in found[source].items() if report["outcome"] == "converted"}
        for index in expected.keys() | got.keys() | converted.keys():
            reason = {**got, **converted}.get(index)
            part = expected.get(index)
            if reason is None or part is None or part not in reason or bool(part) != bool(reason):
                wrong.append(f"{source} {index}: expected {part!r}, found {reason!r}")
    assert not wrong, "\n".join(wrong)
    for (source, index), count in OVEREXPOSED.items():
        assert found[source][index]["pixels"]["overexposed"] == count, (source, index)
    for source, count in MASKED.items():
        assert {each["pixels"].get("masked") for each in found[source].values() if each["outcome"] == "converted"} == {
            count
        }, source
    for source in STACKS.keys() & set(sources):
        data_set = STACKS[source]
        with h5py.File(raw / source.split("::")[0], "r", locking=False) as file:
            for index, report in found[source].items():
                if report["outcome"] == "converted":
                    assert index is not None
                    row = np.unravel_index(index, file[data_set].shape[:-2])
                    require_pixels(report, file[data_set][row])


def require_pixels(report: dict[str, Any], image: NDArray[Any]) -> None:
    """Each pixel is that of the file, or masked and 0."""
    output = tifffile.imread(report["output"])
    other = output != np.clip(image.astype(np.int64), -(2**31), 2**31 - 1)
    assert np.count_nonzero(other) <= report["pixels"].get("masked", 0), report["source"]
    assert not output[other].any(), report["source"]


def require_equal_to_fabio(raw: Path, found: dict[str, dict[int | None, dict[str, Any]]]) -> None:
    for source, reports in found.items():
        for index, report in reports.items():
            if source.endswith((".cbf", ".edf")) and report["outcome"] == "converted":
                with fabio.open(raw / source) as opened:
                    image = (opened if index is None else opened.getframe(index)).data
                    require_pixels(report, image)


def test_every_file_has_its_right_answer_through_a_server(raw: Path, start_server: Callable[..., Server]) -> None:
    server = start_server(*settings("timeout=2.0"))
    proxy = tango.DeviceProxy(server.address)
    recipe = {"pixel_type": "int32"}
    folders = (str(raw.parent / "out" / str(number)) for number in range(len(ANSWERS)))
    requests = (
        {"source": str(raw / source), "recipe": {**recipe, "output": {"folder": folder}}}
        for source, folder in zip(ANSWERS, folders, strict=True)
    )
    answer = submit(proxy, *requests)
    assert not answer["refused"]
    all_done(proxy)
    latest = json.loads(proxy.command_inout("GetReports", json.dumps({"latest": True})))["reports"]
    found = outcomes(raw, latest)
    require_right(raw, found)
    require_equal_to_fabio(raw, found)


def test_every_file_has_its_right_answer_in_the_shell(raw: Path) -> None:
    """`petif convert` of the same files; one that kills its reader costs only itself."""
    sources = [source for source in ANSWERS if "::" not in source]
    command = [sys.executable, "-m", "tango_server", "convert", *(str(raw / source) for source in sources)]
    options = ["--pixel-type", "int32", "--output-dir", str(raw.parent / "out"), "--json"]
    done = subprocess.run([*command, *options], check=False, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    reports = outcomes(raw, [json.loads(line) for line in done.stdout.splitlines()])
    require_right(raw, reports, sources)
    require_equal_to_fabio(raw, reports)
