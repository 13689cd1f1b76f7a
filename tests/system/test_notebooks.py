"""The notebooks of the examples run, each in a copy of their folder, and leave the user's state alone.

In the long lane; the first one also with small frames.
"""

import ast
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted((EXAMPLES / "notebooks").glob("*.ipynb"))
SHAPE = re.compile(r"shape=\(\d+, \d+\)")


def read(path: Path) -> Any:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(notebook: Any) -> int:
    return sum("image/png" in output.get("data", {}) for cell in code(notebook) for output in cell.outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stripped_and_ends_with_a_check(path: Path) -> None:
    cells = code(read(path))
    assert not [cell.source for cell in cells if cell.outputs or cell.execution_count is not None]
    assert any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(cells[-1].source)))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.timeout(120)  # the longest takes 28 s of processor time; a busy machine needs patience
@pytest.mark.parametrize(
    ("path", "shape"),
    [
        pytest.param(NOTEBOOKS[0], "shape=(64, 64)", id="small", marks=pytest.mark.long),
        *(pytest.param(path, None, id=path.stem, marks=pytest.mark.long) for path in NOTEBOOKS),
    ],
)
def test_notebook_runs(path: Path, shape: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {name: tmp_path / name for name in ("examples", "temporary", "state", "ipython", "jupyter")}
    for name in ("temporary", "jupyter"):
        own[name].mkdir()
    shutil.copytree(EXAMPLES, own["examples"])
    before = contents(own["examples"])
    monkeypatch.setenv("TMPDIR", str(own["temporary"]))
    monkeypatch.setenv("XDG_STATE_HOME", str(own["state"]))
    monkeypatch.setenv("IPYTHONDIR", str(own["ipython"]))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(own["jupyter"]))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    notebook = read(path)
    if shape is not None:
        counts = []
        for cell in code(notebook):
            cell.source, count = SHAPE.subn(shape, cell.source)
            counts.append(count)
        assert sum(counts) == 1, f"{path.name}: expected one frame shape"
    where = {"path": str(own["examples"] / "notebooks")}
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": where}).execute()
    complaints = [output.text for cell in code(notebook) for output in cell.outputs if output.get("name") == "stderr"]
    assert not complaints
    assert pictures(notebook)
    assert contents(own["examples"]) == before
    assert not list(own["temporary"].glob("petif-*"))
    assert not own["state"].exists()
