"""The folder watch: one thread for each folder, one book for all."""

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tango_server.conversion.files.path_map import PathMap
from tango_server.jobs.watch.sqlite_store import WatchStore
from tango_server.jobs.watch.watcher import Jobs, Watcher, WatchRules
from tango_server.messages import FrameReport
from tango_server.settings import Settings

_log = logging.getLogger(__name__)

BOOK_NAME = "watched.sqlite"
_CLOSE_PATIENCE = 5.0


def open_watch(settings: Settings, jobs: Jobs) -> "FolderWatch | None":
    """Return the watch that the settings ask for, None if they ask for none; a book in use is told in the log."""
    if not settings.watch:
        return None
    try:
        return FolderWatch(rules_from(settings), jobs, settings.state_dir)
    except OSError as error:
        _log.error("no folder is watched: %s", error)
        return None


class FolderWatch:
    """A running watch over folders, closed for good by `close`.

    Parameters
    ----------
    rules: what is watched
    jobs: the job service, which outlives the watch
    state_dir: folder of the book, `watched.sqlite`
    on_report: is called, from a thread of the watch, with each report of a watched file, before the store takes it for
        reported: after a crash some come again, none is lost

    Raises
    ------
    OSError
        if the book can't be opened; nothing is left running.

    """

    def __init__(
        self,
        rules: WatchRules,
        jobs: Jobs,
        state_dir: Path,
        *,
        on_report: Callable[[FrameReport], None] = lambda _: None,
    ) -> None:
        self._book = WatchStore(state_dir / BOOK_NAME)
        self._watchers = [
            Watcher(folder, rules, jobs, self._book, on_report=on_report) for folder in _distinct(rules.folders, rules)
        ]
        for watcher in self._watchers:
            watcher.start()

    @property
    def trouble(self) -> str:
        """What people should know, in sentences; empty if all is well."""
        return " ".join(filter(None, (self._book.damage, *(watcher.trouble for watcher in self._watchers))))

    @property
    def begun(self) -> bool:
        """Whether every folder was looked at and the look is in the book: what comes from now on is new."""
        return all(watcher.begun for watcher in self._watchers)

    @property
    def idle(self) -> bool:
        """Whether every folder was looked at and nothing found there is still to be submitted or reported."""
        return all(watcher.idle for watcher in self._watchers)

    def close(self, patience: float = _CLOSE_PATIENCE) -> None:
        """End the threads within `patience` seconds. One that a file system holds ends when that lets it go."""
        for watcher in self._watchers:
            watcher.closing.set()
        deadline = time.monotonic() + patience
        for watcher in self._watchers:
            watcher.join(max(deadline - time.monotonic(), 0.0))
            if watcher.is_alive():
                _log.warning("%s: its file system does not answer; the watch is left behind", watcher.folder)
        self._book.close()


def rules_from(settings: Settings) -> WatchRules:
    """Return what the settings say of watching."""
    roots = settings.roots()
    return WatchRules(
        folders=settings.watch,
        existing=settings.watch_existing,
        recursive=settings.watch_recursive,
        interval=settings.watch_interval,
        only_written=tuple(root for root in roots.write if root not in roots.read),
        paths=PathMap.of(settings.path_maps),
    )


def _distinct(folders: Sequence[Path], rules: WatchRules) -> list[Path]:
    """Return the folders without those that lie in another one. Links are not resolved: that could hang."""
    plain = list(dict.fromkeys(Path(os.path.normpath(folder)) for folder in folders))
    if not rules.recursive:
        return plain
    return [folder for folder in plain if not any(other in folder.parents for other in plain)]
