"""Real files of detectors through a server, the shell and run documents; skipped where they are not at hand."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import event_model
import h5py
import hdf5plugin  # noqa: F401 - registers the filters
import numpy as np
import pytest
import tango
import tifffile
from numpy.typing import NDArray

from petif_bluesky import ConversionCallback, PETifConverter
from petif_bluesky.server_poller import ServerPoller
from tango_server.client.client import Client
from tests.system.conftest import Server, settings
from tests.system.waiting import all_done, submit, until

REAL = Path(__file__).parents[3] / "shared" / "data"
FIRST = "testasapo1_1009_00002_m1_part00000.nxs"
DETECTOR = "/entry/instrument/detector"
SHAPE = (1833, 1556)
FRAMES = 10
RECIPE = {"pixel_type": "int32", "invalid_value": -7}

pytestmark = pytest.mark.skipif(not (REAL / "lambda").is_dir(), reason="needs the real files of detectors")


@pytest.fixture
def lambda_folder(root: Path) -> Path:
    return Path(shutil.copytree(REAL / "lambda", root / "raw" / "lambda"))


def expected() -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return all frames, put together with numpy from the places that the modules state, and the mask."""
    frames, mask = np.zeros((FRAMES, *SHAPE), np.int32), np.ones(SHAPE, np.bool_)
    for number in (1, 2, 3):
        with h5py.File(REAL / "lambda" / FIRST.replace("_m1_", f"_m{number}_"), "r", locking=False) as file:
            x, y, _ = file[f"{DETECTOR}/translation/distance"][()].astype(int)
            stack = file[f"{DETECTOR}/data"][()]
            place = np.s_[y : y + stack.shape[1], x + 2 : x + 2 + stack.shape[2]]  # the others are at x = -2
            frames[:, *place] = stack
            mask[place] = file[f"{DETECTOR}/pixel_mask"][0] != 0
    return frames, mask


def require_all(outputs: dict[int, Path]) -> None:
    frames, mask = expected()
    assert sorted(outputs) == list(range(FRAMES))
    for index, output in outputs.items():
        np.testing.assert_array_equal(tifffile.imread(output), np.where(mask, -7, frames[index]))


def outputs_of(reports: list[dict[str, Any]]) -> dict[int, Path]:
    converted = [report for report in reports if report["outcome"] == "converted"]
    assert all(report["pixels"]["masked"] == 541_357 for report in converted)
    return {report["frame"]: Path(report["output"]) for report in converted}


def latest(proxy: tango.DeviceProxy) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(proxy.command_inout("GetReports", '{"latest": true}'))["reports"]
    return found


def test_lambda_folder_through_a_server(lambda_folder: Path, start_server: Callable[..., Server]) -> None:
    server = start_server(*settings("lambda_modules=3", "numworkers=2"))
    proxy = tango.DeviceProxy(server.address)
    proxy.command_inout("SetRecipe", json.dumps(RECIPE))
    proxy.command_inout("AddFolder", str(lambda_folder))
    all_done(proxy)
    reports = latest(proxy)
    assert [report["outcome"] for report in reports if report["outcome"] != "converted"] == ["skipped"]  # m1 itself
    require_all(outputs_of(reports))


def test_lambda_folder_in_the_shell(lambda_folder: Path) -> None:
    command = [sys.executable, "-m", "tango_server", "convert", str(lambda_folder), "--json", "--pixel-type", "int32"]
    done = subprocess.run([*command, "--invalid-value", "-7"], capture_output=True, text=True, check=True)
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    require_all(outputs_of(reports))


def test_lambda_frames_of_run_documents(lambda_folder: Path, root: Path, server: Server) -> None:
    poller = ServerPoller(Client(server.address, 3.0))
    poller.wait_for_first_poll(10)
    converter = PETifConverter(server.address, name="converter", poller=poller)
    callback = ConversionCallback(converter, spool=root / "spool.sqlite")
    run = event_model.compose_run(metadata={"conversion": {"recipe": RECIPE}})
    key = {"source": "lambda", "dtype": "array", "dtype_numpy": "<i2", "shape": [1, *SHAPE], "external": "STREAM:"}
    descriptor = run.compose_descriptor(name="primary", data_keys={"lambda": key})
    resource = run.compose_stream_resource(
        mimetype="application/x-hdf5", uri=f"file://localhost{lambda_folder / FIRST}", data_key="lambda",
        parameters={"dataset": f"{DETECTOR}/data", "chunk_shape": [1, *SHAPE]},
    )  # fmt: skip
    datum = resource.compose_stream_datum(
        indices={"start": 0, "stop": FRAMES}, seq_nums={"start": 1, "stop": FRAMES + 1},
        descriptor=descriptor.descriptor_doc,
    )  # fmt: skip
    callback("start", run.start_doc)
    callback("descriptor", descriptor.descriptor_doc)
    callback("stream_resource", resource.stream_resource_doc)
    callback("stream_datum", datum)
    callback("stop", run.compose_stop())
    proxy = tango.DeviceProxy(server.address)
    until(lambda: len(latest(proxy)) == FRAMES, "every frame has its report")
    callback.close()
    poller.close()
    reports = latest(proxy)
    assert [report["seq_num"] for report in sorted(reports, key=lambda each: each["frame"])] == [*range(1, FRAMES + 1)]
    require_all(outputs_of(reports))


def test_real_files_of_other_detectors(root: Path, start_server: Callable[..., Server]) -> None:
    for folder in ("hdf5", "cbf", "pilatus"):
        shutil.copytree(REAL / folder, root / "raw" / folder)
    server = start_server(*settings("timeout=3.0", "numworkers=2"))
    proxy = tango.DeviceProxy(server.address)
    names = ["hdf5/vac_007_data_000001.h5", "hdf5/ID34_not_complete.h5", "hdf5/AgBehenate_228.hdf5",
             "cbf/in16c_010001.cbf", "pilatus/CeO2_Pilatus1M.tif", "pilatus/GI2_A9_19_001_0000.tiff"]  # fmt: skip
    requests = [{"source": str(root / "raw" / name), "recipe": RECIPE} for name in names]
    missing = {"source": str(root / "raw" / "hdf5/xrc_209_master.h5"), "recipe": RECIPE, "frame": 7}
    submit(proxy, *requests, missing)
    all_done(proxy)
    reports = {(Path(report["source"]).name, report.get("frame")): report for report in latest(proxy)}
    assert "xrc_209_000001.h5" in reports["xrc_209_master.h5", 7]["reason"]
    for index in (0, 1):
        eiger = reports["vac_007_data_000001.h5", index]
        assert (eiger["shape"], eiger["pixels"]["masked"]) == ([3262, 3108], 664_805)
        assert not np.isin(tifffile.imread(eiger["output"]), [2**32 - 1, 2**31 - 1, -1]).any()
    assert reports["ID34_not_complete.h5", 0]["shape"] == [100, 60]
    assert reports["AgBehenate_228.hdf5", 0]["outcome"] == "converted"
    stated = reports["in16c_010001.cbf", None]["metadata"]
    assert (stated["incident_wavelength"], stated["detector_distance"], stated["exposure_time"]) == (1.542, 40.0, 1.0)
    assert (stated["beam_center_x"], stated["beam_center_y"]) == (244.0, 308.0)
    pilatus = reports["GI2_A9_19_001_0000.tiff", None]["metadata"]
    assert pilatus["saturation_value"] == 1_380_198
    assert "beam_center_x" not in pilatus
