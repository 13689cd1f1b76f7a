"""The folder watch: one thread for each folder, one store for all."""

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

STORE_NAME = "watched.sqlite"
_CLOSE_TIMEOUT = 5.0
_NEXT_POLL = 2.0  # s; by then, a job has seen a change


def open_watch(settings: Settings, jobs: Jobs) -> "FolderWatch | None":
    """Return the watch of the settings, None if there is none; a store that is in use is logged as an error."""
    if not settings.watch:
        return None
    try:
        return FolderWatch(rules_from(settings), jobs, settings.state_dir)
    except OSError as error:
        _log.error("Cannot watch folders: %s", error)
        return None


class FolderWatch:
    """A running watch over folders; can't be restarted after `close`.

    Parameters
    ----------
    rules: what to watch
    jobs: the job service, which outlives the watch
    state_dir: folder of the store, `watched.sqlite`
    on_report: called from a thread of the watch with each report of a watched file, before it is recorded in the store:
        after a crash some reports come again, none is lost

    Raises
    ------
    OSError
        if the store can't be opened; nothing is left running.

    """

    def __init__(
        self,
        rules: WatchRules,
        jobs: Jobs,
        state_dir: Path,
        *,
        on_report: Callable[[FrameReport], None] = lambda _: None,
    ) -> None:
        self._store = WatchStore(state_dir / STORE_NAME)
        self._watchers = [
            Watcher(folder, rules, jobs, self._store, on_report=on_report) for folder in _distinct(rules.folders, rules)
        ]
        for watcher in self._watchers:
            watcher.start()

    @property
    def problem(self) -> str:
        """Messages about problems; empty if all is well."""
        return " ".join(filter(None, (self._store.damage, *(watcher.problem for watcher in self._watchers))))

    @property
    def begun(self) -> bool:
        """Whether every folder was scanned and recorded: files that appear from now on are new."""
        return all(watcher.begun for watcher in self._watchers)

    @property
    def idle(self) -> bool:
        """Whether every folder was scanned and no file in it is still to be submitted or reported."""
        return all(watcher.idle for watcher in self._watchers)

    def close(self, timeout: float = _CLOSE_TIMEOUT) -> None:
        """Stop the threads within `timeout` seconds. One blocked by a file system stops when that responds."""
        for watcher in self._watchers:
            watcher.closing.set()
        deadline = time.monotonic() + timeout
        for watcher in self._watchers:
            watcher.join(max(deadline - time.monotonic(), 0.0))
            if watcher.is_alive():
                _log.warning("%s: cannot stop watching: the file system does not respond", watcher.folder)
        self._store.close()


def rules_from(settings: Settings) -> WatchRules:
    """Return the watch rules from the settings."""
    roots = settings.roots()
    return WatchRules(
        folders=settings.watch,
        existing=settings.watch_existing,
        recursive=settings.watch_recursive,
        interval=settings.watch_interval,
        settle=max(settings.settle_time, settings.settle_complete) + _NEXT_POLL,
        only_written=tuple(root for root in roots.write if root not in roots.read),
        paths=PathMap.of(settings.path_maps),
    )


def _distinct(folders: Sequence[Path], rules: WatchRules) -> list[Path]:
    """Return the folders without those inside another one. Links are not resolved, since that could hang."""
    plain = list(dict.fromkeys(Path(os.path.normpath(folder)) for folder in folders))
    if not rules.recursive:
        return plain
    return [folder for folder in plain if not any(other in folder.parents for other in plain)]
