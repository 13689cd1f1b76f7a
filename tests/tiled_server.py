"""Real Tiled servers for tests, on catalogues whose tables were made once for all of them.

Tiled and what reads and writes it take seconds to be imported: only tests that need them do so, by these functions.
"""

import tempfile
import warnings
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

if TYPE_CHECKING:
    from bluesky_tiled_plugins import TiledWriter
    from tiled.server import SimpleTiledServer


def open_tiled(folder: Path, **options: Any) -> "SimpleTiledServer":
    """Return a running server of the catalogue in `folder`, a new one if there is none.

    To make the tables, or to find that they are there, Tiled starts a process that takes seconds at each start.
    """
    import tiled.catalog
    from tiled.server import SimpleTiledServer

    database = folder / "catalog.db"
    if not database.exists():
        folder.mkdir(parents=True, exist_ok=True)
        database.write_bytes(_empty_catalogue())
    ready = partial(_from_uri, tiled.catalog.from_uri)
    with patch.object(tiled.catalog, "from_uri", ready):
        return SimpleTiledServer(folder, **options)


def open_client(uri: str) -> Any:
    """Return a client of a running server."""
    from tiled.client import from_uri

    return from_uri(uri)


def tiled_writer(client: Any, **options: Any) -> "TiledWriter":
    """Return bluesky's callback that writes runs into a catalogue."""
    from bluesky_tiled_plugins import TiledWriter

    return TiledWriter(client, **options)


def _from_uri(original: Any, *arguments: Any, **options: Any) -> Any:
    return original(*arguments, **{**options, "init_if_not_exists": False})


@cache
def _empty_catalogue() -> bytes:
    from tiled.commandline._catalog import init

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # what Alembic tells of Tiled's own configuration
        database = Path(folder) / "catalog.db"
        init(f"sqlite+aiosqlite:///{database}", if_not_exists=False)
        return database.read_bytes()
