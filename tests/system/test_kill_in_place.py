"""Killed at any instant, a conversion in place leaves the old file or the new one, and none is ever turned twice."""

import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from petif_bluesky.sim.qxrd_file import write_frame
from tango_server.conversion import convert_file
from tests.system.kill_in_place import RECIPE


@pytest.mark.skipif(os.name == "nt", reason="Windows has no fork and no SIGKILL")
@pytest.mark.parametrize("files", [60, pytest.param(200, marks=pytest.mark.long)])
def test_no_kill_damages_a_file(tmp_path: Path, files: int) -> None:
    originals: dict[Path, bytes] = {}
    for number in range(files):
        path = tmp_path / f"frame-{number:05d}.tif"
        image = np.random.default_rng(number).normal(100, 50, (256, 320)).astype(np.float32)
        write_frame(path, image, document_name=path.name, acquired=datetime(2024, 5, 17))
        originals[path] = path.read_bytes()
    script = Path(__file__).with_name("kill_in_place.py")
    subprocess.run(
        [sys.executable, str(script), str(tmp_path), "20260517"],
        check=True,
        env={**os.environ, "PYTHONPATH": str(script.parents[2])},
    )
    new: dict[Path, bytes] = {}
    for path, original in originals.items():
        reference = tmp_path / "reference" / path.name
        reference.parent.mkdir(exist_ok=True)
        reference.write_bytes(original)
        convert_file(reference, RECIPE)
        new[path] = reference.read_bytes()
        reference.unlink()
    turned = [path for path in originals if path.read_bytes() == new[path]]
    untouched = [path for path in originals if path.read_bytes() == originals[path]]
    assert len(turned) + len(untouched) == files, "a file is neither old nor new"
    assert turned, "no kill came late enough: this shows nothing"
    assert untouched, "no kill came early enough: this shows nothing"
    outcomes = [convert_file(path, RECIPE).outcome for path in originals]
    assert outcomes.count("skipped") == len(turned)
    assert all(path.read_bytes() == new[path] for path in originals)
