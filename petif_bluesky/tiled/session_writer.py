"""The writer of a session's runs to a catalogue."""

from pathlib import Path
from typing import Any

from bluesky import RunEngine

from petif_bluesky.tiled.background_writer import BackgroundWriter
from petif_bluesky.tiled.literal_names import LiteralNames
from petif_bluesky.tiled.patches import with_trailing_slash


def writer_for(client: Any, folder: Path) -> BackgroundWriter:
    """Return a writer of literal names; runs that the catalogue does not accept are kept as files below `folder`."""
    from bluesky_tiled_plugins import TiledWriter  # noqa: PLC0415 - takes 2 s, only needed with a catalogue

    backup = folder / "runs-not-in-the-catalogue"
    backup.mkdir(parents=True, exist_ok=True)
    writer = TiledWriter(client, patches={"resource": with_trailing_slash}, backup_directory=str(backup))
    return BackgroundWriter(LiteralNames(writer))


def has_writer(run_engine: RunEngine) -> bool:
    """Return whether a `TiledWriter` is subscribed, also within `LiteralNames` or bluesky's `BufferingWrapper`."""
    registered = run_engine.dispatcher.cb_registry.callbacks.values()
    return any(_is_writer(proxy.func) for proxies in registered for proxy in proxies.values())


def _is_writer(subscriber: Any) -> bool:
    if subscriber is None:
        return False
    inner = getattr(subscriber, "subscriber", None) or getattr(subscriber, "_wrapped_callback", None)
    return type(subscriber).__name__ == "TiledWriter" or _is_writer(inner)
