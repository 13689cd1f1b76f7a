"""Real Tiled servers for tests, on catalogues whose tables were made once for all of them."""

import subprocess
import sys
import tempfile
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import tiled.catalog
from tiled.server import SimpleTiledServer


def open_tiled(folder: Path, **options: Any) -> SimpleTiledServer:
    """Return a running server of the catalogue in `folder`, a new one if there is none.

    To make the tables, or to find that they are there, Tiled starts a process that takes seconds at each start.
    """
    database = folder / "catalog.db"
    if not database.exists():
        folder.mkdir(parents=True, exist_ok=True)
        database.write_bytes(_empty_catalogue())
    ready = partial(_from_uri, tiled.catalog.from_uri)
    with patch.object(tiled.catalog, "from_uri", ready):
        return SimpleTiledServer(folder, **options)


def _from_uri(original: Any, *arguments: Any, **options: Any) -> Any:
    return original(*arguments, **{**options, "init_if_not_exists": False})


@cache
def _empty_catalogue() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "catalog.db"
        command = [sys.executable, "-m", "tiled", "catalog", "init", f"sqlite+aiosqlite:///{database}"]
        subprocess.run(command, check=True, capture_output=True)
        return database.read_bytes()
