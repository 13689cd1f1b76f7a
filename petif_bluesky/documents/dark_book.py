"""Find the dark of a frame among all darks that a session knows.

    documents of a run  -->  Dark    -->  DarkBook  -->  FoundDark (files for the recipe, facts for the report)
                        -->  Light   -->

Sources, in this order; a dark must fit the frame in all that is known of both:

1. the last dark event of the detector before the frame, in the frame's own run
2. the run of darks that the start document names (`sc_dk_field_uid`)
3. the newest dark of the detector that came before the frame, no older than the recipe's `dark_max_age`

A dark event that names no files is never replaced by an older dark: the detector may have other settings by now.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator

from petif_bluesky.documents.darks import Dark, FoundDark, Light, spelled
from tango_server.recipe.corrections import DarkFacts

_KEPT_EVENTS = 1000
_KEPT_DARKS = 100
_KEPT_PATHS = 100
"""Maximum number of files of a run of darks that are averaged."""
_NO_FILES = (
    "the dark stream of this run names no files: no resource and datum documents announce TIFF files of {detector}. "
    "With bluesky-darkframes on Python 3.12 or later, give its _SnapshotShell the methods collect_asset_docs, stage "
    "and unstage, as described in the documentation"
)


_UNFIT = (
    "the dark frame {unfit} is one of several in its file, which cannot be the dark of a run yet. Give a file as dark "
    "in the recipe"
)


class DarkBook:
    """All known darks; never waits and uses no files.

    Parameters
    ----------
    known: darks from earlier sessions
    most: maximum number of latest dark events of a detector that are kept, None for no limit

    """

    def __init__(self, known: Iterable[Dark] = (), *, most: int | None = _KEPT_EVENTS) -> None:
        self._most = most
        self._events: dict[str, list[Dark]] = {}
        """By detector: the latest dark events, sorted by `order`, for frames of the same run."""
        self._known: dict[str, dict[tuple[str, ...], Dark]] = {}
        """By detector and files: the first event with them whose settings are certain, for frames of other runs."""
        for dark in known:
            self.add(dark)

    def __iter__(self) -> Iterator[Dark]:
        return (dark for known in self._known.values() for dark in known.values())

    def add(self, dark: Dark) -> bool:
        """Add a dark; return whether it is new to other runs."""
        events = self._events.setdefault(dark.settings.detector, [])
        place = bisect_right(events, dark.order, key=lambda each: each.order)
        if place and _is_earlier_form(events[place - 1], dark):
            place -= 1
            del events[place]
        events.insert(place, dark)
        if self._most is not None:
            del events[: -self._most]
        known = self._known.setdefault(dark.settings.detector, {})
        before = known.get(dark.paths)
        if not dark.paths or dark.outdated or (before is not None and before.time == dark.time):
            return False
        known[dark.paths] = dark
        if len(known) > _KEPT_DARKS:
            del known[min(known.values(), key=_age_key).paths]
        return True

    def knows_run(self, run_uid: str) -> bool:
        """Return whether darks of a run are known."""
        return any(dark.run_uid == run_uid for dark in self)

    def unfit_of(self, run_uid: str) -> str:
        """Return why the darks of a run cannot be used, "" if they can or there are none."""
        of_run = (dark for events in self._events.values() for dark in events if dark.run_uid == run_uid and dark.unfit)
        return next((_UNFIT.format(unfit=dark.unfit) for dark in of_run), "")

    def has_own(self, frame: Light) -> bool:
        """Return whether the run of a frame has had a dark event of its detector before the frame."""
        return self._last_of_run(frame) is not None

    def newest(self) -> list[Dark]:
        """Return the newest dark of each detector."""
        return [max(known.values(), key=_age_key) for known in self._known.values() if known]

    def dark_for(self, frame: Light, max_age: float | None, now: float, unknown: str = "") -> FoundDark:
        """Return the dark of a frame of a run in progress.

        Parameters
        ----------
        frame: the frame
        max_age: maximum age of the newest known dark, in s; None for no limit
        now: Unix time, for frames without a time of their own
        unknown: why the run of darks that the start document names is not known

        """
        notes: list[str] = []
        if found := self._given(frame, notes, unknown):
            return found
        if frame.outdated:
            return _none("; ".join(notes))
        return self._newest_known(frame, max_age, now, notes)

    def dark_afterwards(self, frame: Light, unknown: str = "") -> FoundDark:
        """Return the dark of a frame of a complete run: its first later dark serves frames that have no earlier one.

        `unknown` is why the run of darks that the start document names is not known.
        """
        notes: list[str] = []
        if found := self._given(frame, notes, unknown):
            return found
        events = self._events.get(frame.settings.detector, ())
        later = (dark for dark in events if dark.run_uid == frame.run_uid and dark.order > frame.order)
        first = next((dark for dark in later if dark.paths and frame.settings.fits(dark.settings)), None)
        if first is None:
            why = self.unfit_of(frame.run_uid) or f"no dark of {frame.settings.detector} in the run"
            return _none("; ".join([*notes, why]))
        return _found([first], frame, [*notes, "the dark was taken after the frame"])

    def _given(self, frame: Light, notes: list[str], unknown: str) -> FoundDark | None:
        """Return the dark of the run itself, or of the run that it names; add to the notes why there is none."""
        own = self._last_of_run(frame)
        if own is not None:
            if not own.paths:
                why = _UNFIT if own.unfit else _NO_FILES
                return _none(why.format(unfit=own.unfit, detector=own.settings.detector))
            if found := _taken([own], frame, notes, "the last dark of this run"):
                return found
        if not frame.dark_run:
            return None
        name = f"the dark run {frame.dark_run}"
        darks = [dark for dark in self._known_to(frame) if dark.run_uid == frame.dark_run]
        if not darks:
            why = unknown or self.unfit_of(frame.dark_run)
            notes.append(f"{name} is not known" + (f": {why}" if why else ""))
            return None
        return _taken(darks, frame, notes, name)

    def _newest_known(self, frame: Light, max_age: float | None, now: float, notes: list[str]) -> FoundDark:
        known = self._known_to(frame)
        fitting = [dark for dark in known if frame.settings.fits(dark.settings)]
        if not fitting:
            notes.append(_why_none(known, frame))
            return _none("; ".join(notes))
        moment = now if frame.time is None else frame.time
        oldest = -math.inf if max_age is None else moment - max_age
        young = [dark for dark in fitting if oldest <= dark.time <= moment]
        if not young:
            newest = too_old(frame.settings.detector, moment - max(dark.time for dark in fitting), max_age)
            return _none("; ".join([*notes, newest]))
        certain = [dark for dark in young if not frame.settings.not_compared(dark.settings)]
        chosen = max(certain or young, key=_age_key)
        notes.append(f"the newest known dark, {spelled(moment - chosen.time)} old")
        of_its_run = [dark for dark in young if dark.of_dark_run and dark.run_uid == chosen.run_uid]
        return _found(of_its_run if chosen.of_dark_run else [chosen], frame, notes)

    def _known_to(self, frame: Light) -> list[Dark]:
        """Return the known darks of the same image that came before a frame."""
        known = self._known.get(frame.settings.detector, {}).values()
        earlier = (dark for dark in known if dark.order <= frame.order)
        return [dark for dark in earlier if frame.settings.is_of_same_image(dark.settings)]

    def _last_of_run(self, frame: Light) -> Dark | None:
        events = self._events.get(frame.settings.detector, [])
        for dark in reversed(events[: bisect_right(events, frame.order, key=lambda each: each.order)]):
            if dark.run_uid == frame.run_uid and frame.settings.is_of_same_image(dark.settings):
                return dark
        return None


def _taken(darks: list[Dark], frame: Light, notes: list[str], name: str) -> FoundDark | None:
    """Return the darks that fit; if none does, add to the notes why."""
    fitting = [dark for dark in darks if frame.settings.fits(dark.settings)]
    if fitting:
        return _found(fitting, frame, notes)
    differing = darks[0]
    notes.append(f"{name} does not fit: {'; '.join(frame.settings.differences(differing.settings))}")
    if differing.outdated:
        notes.append("its settings may have changed: the configuration in its descriptor is that of an earlier dark")
    return None


def _found(darks: list[Dark], frame: Light, notes: list[str]) -> FoundDark:
    """Return what is averaged, and its facts."""
    paths = list(dict.fromkeys(path for dark in darks for path in dark.paths))
    if len(paths) > _KEPT_PATHS:
        notes.append(f"the last {_KEPT_PATHS} of {len(paths)} dark frames")
    missing = {name for dark in darks for name in frame.settings.not_compared(dark.settings)}
    if missing:
        notes.append(f"not compared with the dark, because unknown: {', '.join(sorted(missing))}")
    facts = DarkFacts(run_uid=darks[-1].run_uid, note="; ".join(notes))
    if not (frame.outdated or darks[-1].outdated):
        known = {"exposure_time": darks[-1].settings.exposure_time, "gain": darks[-1].settings.gain}
        facts = facts.model_copy(update=known)
    return FoundDark(tuple(paths[-_KEPT_PATHS:]), facts)


def _why_none(known: list[Dark], frame: Light) -> str:
    if not known:
        return f"no dark of {frame.settings.detector} is known"
    newest = max(known, key=_age_key)
    return f"the newest dark does not fit: {'; '.join(frame.settings.differences(newest.settings))}"


def _none(why: str) -> FoundDark:
    return FoundDark((), DarkFacts(note=why))


def _age_key(dark: Dark) -> tuple[float, int]:
    return dark.time, dark.order


def _is_earlier_form(one: Dark, other: Dark) -> bool:
    """Return whether one is the event of the other before its files were known."""
    return not one.paths and (one.run_uid, one.order) == (other.run_uid, other.order)


def too_old(detector: str, age: float, max_age: float | None) -> str:
    """Return the reason why the newest dark is not used; `age` and `max_age` are in s."""
    if age < 0 or max_age is None:
        return f"the newest dark of {detector} is later than the frame"
    return f"the newest dark of {detector} is {spelled(age)} old, dark_max_age is {spelled(max_age)}"
