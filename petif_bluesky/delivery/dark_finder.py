"""Give each frame the dark of its run before it is requested.

The run of darks that a start document names may be known to the catalogue only. It is looked up in a thread from the
start of the run on, and its frames wait for the answer, for at most 20 s:

    start (names a run) --> thread: catalogue --> answer, or time is over
    frames ---------------> held back ----------> released with their dark, or with the reason why there is none
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from petif_bluesky.delivery.known_darks import KnownDarks
from petif_bluesky.documents.dark_book import DarkBook
from petif_bluesky.documents.darks import Dark, Light, corrections_of
from petif_bluesky.documents.frame import Frame
from tango_server.text import cut_middle

_log = logging.getLogger(__name__)

_PATIENCE = 20.0  # s; shorter than the default of `drain_timeout`
_KEPT_LOOKUPS = 100
_KEPT_WARNINGS = 100
_LONGEST_PROBLEM = 500

FindDarks = Callable[[str], list[Dark]]
"""Returns the darks of a run in a catalogue, by its uid; raises an error with the reason if it has none."""


@dataclass(slots=True)
class _Lookup:
    run_uid: str
    frames: list[Frame] = field(default_factory=list)
    afterwards: list[Callable[[], None]] = field(default_factory=list)
    """What to do once the frames are released."""
    problem: str = ""
    answered: bool = False
    timer: threading.Timer | None = None


class DarkFinder:
    """The darks of a session, and the frames that wait for one. Thread-safe; no call waits for the catalogue.

    Parameters
    ----------
    spool: the spool file; the known darks are kept beside it
    release: called in a thread with frames that have waited, and now have what was found
    hold_back: called with the run of frames that begin to wait, and their number; negative when they are released

    """

    def __init__(
        self, spool: Path, *, release: Callable[[list[Frame]], None], hold_back: Callable[[str, int], None]
    ) -> None:
        self.find: FindDarks | None = None
        """Finds the darks of runs that this session has not seen; called in a thread."""
        self.patience = _PATIENCE
        self._release = release
        self._hold_back = hold_back
        self._file = KnownDarks(spool)
        self._book = DarkBook(self._file.read())
        self._warned: dict[tuple[str, str], None] = {}
        """Run and reason of each logged warning."""
        self._lookups: dict[str, _Lookup] = {}
        """By run of darks."""
        self._lock = threading.RLock()

    def add(self, dark: Dark) -> None:
        """Add a dark of a run in progress."""
        with self._lock:
            if self._book.add(dark):
                self._file.write(self._book)

    def newest(self) -> list[Dark]:
        """Return the newest known dark of each detector."""
        with self._lock:
            return self._book.newest()

    def look_up(self, run_uid: str) -> None:
        """Look up a run of darks in the background, unless its darks are known."""
        with self._lock:
            before = self._lookups.get(run_uid)
            is_under_way = before is not None and not before.answered
            if not run_uid or self.find is None or is_under_way or self._book.knows_run(run_uid):
                return
            self._lookups.pop(run_uid, None)
            lookup = self._lookups[run_uid] = _Lookup(run_uid)
            lookup.timer = threading.Timer(
                self.patience, self._answer, (lookup, [], f"the catalogue has not answered within {self.patience:g} s")
            )
            lookup.timer.daemon = True
            lookup.timer.start()
            while len(self._lookups) > _KEPT_LOOKUPS and next(iter(self._lookups.values())).answered:
                del self._lookups[next(iter(self._lookups))]
        threading.Thread(target=self._find, args=(lookup, self.find), name="petif-darks", daemon=True).start()

    def with_darks(self, frames: list[Frame]) -> list[Frame]:
        """Return frames with their darks; those that wait for a lookup are left out and released later."""
        ready: list[Frame] = []
        for frame in frames:
            with self._lock:
                lookup = None if frame.light is None else self._waits_for(frame.light)
                if lookup is None:
                    ready.append(self._with_dark(frame))
                    continue
                self._hold_back(frame.run_uid, 1)
                lookup.frames.append(frame)
        return ready

    def when_released(self, run_uid: str, do: Callable[[], None]) -> None:
        """Call `do` once no frame of a run waits for a dark; at once if none does."""
        with self._lock:
            for lookup in self._lookups.values():
                if any(frame.run_uid == run_uid for frame in lookup.frames):
                    lookup.afterwards.append(do)
                    return
        do()

    def close(self) -> None:
        """Release all frames that wait."""
        for lookup in list(self._lookups.values()):
            self._answer(lookup, [], "the session ended before the catalogue answered")

    def _waits_for(self, frame: Light) -> _Lookup | None:
        lookup = self._lookups.get(frame.dark_run)
        return None if lookup is None or lookup.answered or self._book.has_own(frame) else lookup

    def _with_dark(self, frame: Frame) -> Frame:
        if frame.light is None:
            return frame
        corrections = corrections_of(frame.recipe)
        max_age = corrections.dark_max_age if corrections else None
        lookup = self._lookups.get(frame.light.dark_run)
        problem = lookup.problem if lookup else ""
        dark = self._book.dark_for(frame.light, max_age, time.time(), problem)
        why = (frame.run_uid, dark.facts.note)
        if not dark.paths and why not in self._warned:
            _log.warning("run %s: frames without a dark: %s", *why)
            self._warned[why] = None
            if len(self._warned) > _KEPT_WARNINGS:
                del self._warned[next(iter(self._warned))]
        return replace(frame, dark=dark)

    def _find(self, lookup: _Lookup, find: FindDarks) -> None:
        """Runs in a thread of its own."""
        try:
            darks, problem = find(lookup.run_uid), ""
        except Exception as error:  # noqa: BLE001 - boundary to the catalogue: the frames must not wait for ever
            _log.warning("run %s: cannot look up its darks in the catalogue: %s", lookup.run_uid, error)
            darks, problem = [], cut_middle(str(error), _LONGEST_PROBLEM)
        self._answer(lookup, darks, problem)

    def _answer(self, lookup: _Lookup, darks: list[Dark], problem: str) -> None:
        """Release the frames that wait for a run of darks; a late answer serves later frames."""
        with self._lock:
            for dark in darks:
                self.add(dark)
            if lookup.answered:
                return
            lookup.answered, lookup.problem = True, problem
            frames = [self._with_dark(frame) for frame in lookup.frames]
        if lookup.timer is not None:
            lookup.timer.cancel()
        if frames:
            self._release(frames)
        for frame in frames:
            self._hold_back(frame.run_uid, -1)
        with self._lock:  # only now: until then, their runs have frames that wait
            lookup.frames.clear()
            afterwards, lookup.afterwards = lookup.afterwards, []
        for do in afterwards:
            do()
