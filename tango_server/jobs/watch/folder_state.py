r"""What is known of the files in a watched folder: looks, stats and reports in, requests out. No I/O, no threads.

::

    came --> wanted --(submitted)--> under way --(reported)--> at rest --(changed, and still again)--> wanted
      \--(there when first watched, ours, or refused)-----------^

A file is wanted when its name appears; when it is complete is for the job to find out. Content that replaces what was
submitted is a new generation of the file, and a new job. A file that changed while its job ended badly is one, too: its
writer took longer than the job has waited.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple

from tango_server.jobs.frame_listing import Listing
from tango_server.jobs.path_index import PathIndex
from tango_server.messages import FrameReport

FORGET_AFTER = 30 * 86_400.0
"""How long a vanished name is remembered, s: an archive or a mount that is away for days brings no new files."""
VANISHED_LIMIT = 100_000
_RECENT = 20


class Identity(NamedTuple):
    """What tells one content of a file from the next. The inode does not: some SMB mounts make up new ones."""

    size: int
    mtime_ns: int


INTENDED = ""

_NOTHING = Identity(-1, -1)
"""Of a file that was not there: whatever is there later is another one."""


@dataclass(frozen=True, slots=True)
class Known:
    """One file of a watched folder.

    `job_id` is the job whose report is still to come, `INTENDED` if it is to be submitted and may have been; None if
    the file is at rest. `identity` is what it was when it came to rest, before it was submitted, or at the last look
    while under way; None if it was not looked at yet. `gone_since` (Unix s) is None for a file that is there.
    """

    generation: int = 0
    identity: Identity | None = None
    job_id: str | None = None
    gone_since: float | None = None


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of a watched folder itself.

    `floor` is the generation that a new name starts with: above that of every forgotten one, so that a key is never
    used twice. `due` are the sub-folders that were not looked into so far, since outputs go there or they could not be
    listed at the first watch: what they hold when they are is no news either.
    """

    watched_before: bool = False
    floor: int = 0
    due: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to be submitted."""

    name: str
    generation: int


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be written down: new values of files, names to forget, and the folder itself."""

    files: Mapping[str, Known] = field(default_factory=dict)
    forgotten: frozenset[str] = frozenset()
    past: Past | None = None


class WatchedFolder:
    """Owner of what is known of one watched folder.

    With `take_existing=False` the files that are there when the folder is watched for the first time ever are left.
    """

    def __init__(self, known: Mapping[str, Known], past: Past, *, take_existing: bool) -> None:
        self._known = PathIndex(known, _as_json, _of_json)
        self._past = past
        self._take_existing = take_existing
        self._wanted = {
            name: file.generation for name, file in known.items() if file.job_id == INTENDED and file.gone_since is None
        }
        self._moving: dict[str, Identity | None] = {}
        """Files that are no longer what they were, with what they were at the last look: to be taken once still."""
        self._under_way = {name: file.job_id for name, file in known.items() if file.job_id}
        gone = [(file.gone_since, name) for name, file in known.items() if file.gone_since is not None]
        self._gone = {name: since for since, name in sorted(gone)}
        self._recent: deque[str] = deque(maxlen=_RECENT)
        self._round: Iterator[str] = iter(())
        self._changed: set[str] = set()
        self._forgotten: set[str] = set()
        self._past_changed = False
        self._most_present = len(known)

    @property
    def present(self) -> list[str]:
        """The names that were there at the last look."""
        return [name for name, file in self._known.items() if file.gone_since is None]

    @property
    def idle(self) -> bool:
        """Whether nothing is wanted, under way or changing."""
        return not (self._wanted or self._under_way or self._moving)

    def listed(self, listing: Listing, wall: float) -> None:
        """Take a look in; `wall` is its instant in Unix seconds."""
        self._most_present = max(self._most_present, len(self._known) - len(self._gone))
        for name in listing.gone:
            self._wanted.pop(name, None)
            self._moving.pop(name, None)
            if name in self._known:
                self._gone[name] = wall
                self._note(name, replace(self._known[name], gone_since=wall))
        for name in listing.came:
            known = self._known.get(name)
            if known is not None:  # it is back: perhaps the same, perhaps another file of this name
                self._came_back(name, known)
            elif self._was_there_before(name):
                self._note(name, Known(self._past.floor))
            else:
                self._wanted[name] = self._past.floor
        self._settle_past(listing)

    def _came_back(self, name: str, known: Known) -> None:
        if known.job_id is None:
            self._moving[name] = None
        else:  # its job may end for want of it, and what came back was not looked at then
            known = replace(known, identity=_NOTHING)
        if known.job_id == INTENDED:
            self._wanted[name] = known.generation
        self._gone.pop(name, None)
        self._note(name, replace(known, gone_since=None))

    def wanted(self) -> list[Wanted]:
        """Return the files to be submitted, the longest known first."""
        return [Wanted(name, generation) for name, generation in self._wanted.items()]

    def intended(self, wanted: Wanted, identity: Identity | None) -> None:
        """The file is about to be submitted as it is; to be written down before it is.

        After a crash the same request brings the job that it brought before, which may have ended with older content.
        """
        known = self._known.get(wanted.name)
        if known is None or known.job_id != INTENDED:
            self._note(wanted.name, Known(wanted.generation, identity, INTENDED))

    def submitted(self, wanted: Wanted, job_id: str) -> None:
        """The file is a job now."""
        del self._wanted[wanted.name]
        self._under_way[wanted.name] = job_id
        self._note(wanted.name, replace(self._known[wanted.name], job_id=job_id))

    def left(self, wanted: Wanted, identity: Identity | None) -> None:
        """The file is not to be submitted as it is: it is an output, or was refused. Other content may be."""
        self._wanted.pop(wanted.name, None)
        self._note(wanted.name, Known(wanted.generation, identity))

    def under_way(self, limit: int) -> dict[str, str]:
        """Return names and job ids of files whose report is to be asked for; the next call begins with others."""
        asked = dict(islice(self._under_way.items(), limit))
        for name, job_id in asked.items():
            del self._under_way[name]
            self._under_way[name] = job_id
        return asked

    def pending(self, name: str, identity: Identity | None) -> None:
        """There is no report yet; `identity` was taken before that was asked."""
        file = self._known[name]
        if identity is not None and identity != file.identity:
            self._note(name, replace(file, identity=identity))

    def reported(self, name: str, report: FrameReport, identity: Identity | None) -> None:
        """The file's job has ended; `identity` was taken after the report came, None if there is no file.

        A conversion has read the file as it is now if the sizes agree. A job that ended badly has seen it if the file
        has not changed since the last look at which the job was under way. Else the file is to be taken again.
        """
        del self._under_way[name]
        file = self._known[name]
        seen = identity
        if report.outcome == "converted" and identity is not None:
            in_place = report.output == report.source
            seen = identity if in_place or report.bytes_in == identity.size else _NOTHING
        elif report.outcome in {"failed", "placeholder"}:
            seen = _NOTHING if identity is None else file.identity or identity
        if identity is not None and identity != seen:
            self._moving[name] = identity
        self._recent.append(name)
        self._note(name, replace(file, job_id=None, identity=seen or file.identity))

    def lost(self, name: str) -> None:
        """The file's job is unknown (its ledger was set aside): the file is to be submitted like a new one."""
        there = self._known[name].gone_since is None
        self._drop(name)
        if there:
            self._wanted[name] = self._past.floor

    def to_check(self, limit: int) -> list[str]:
        """Return files at rest to be looked at for new content.

        First those that seem to have some, then the latest ones, then the next of all others in turn.
        """
        names = dict.fromkeys(islice(self._moving, limit))
        names.update(dict.fromkeys(name for name in self._recent if self._rests(name)))
        for _ in range(2):
            while len(names) < limit and (name := next(self._round, None)) is not None:
                if self._rests(name):
                    names[name] = None
            if len(names) >= limit:
                break
            self._round = iter(self._known)
        return list(names)[:limit]

    def checked(self, name: str, identity: Identity | None) -> None:
        """A file at rest is `identity` now, None if it can't be looked at. Changed and still twice, it is wanted."""
        last = self._moving.pop(name, None)
        file = self._known.get(name)
        if file is None or identity is None or identity == file.identity:
            return
        if file.identity is None:
            self._note(name, replace(file, identity=identity))
        elif identity == last:
            self._wanted[name] = file.generation + 1
        else:
            self._moving[name] = identity

    def forget(self, wall: float) -> None:
        """Forget names that vanished long ago, and the oldest ones if there are more than were ever there together.

        So a mount that is away for a while, and seems empty, brings no old frames when it is back, however many.
        """
        most = max(VANISHED_LIMIT, self._most_present)
        while self._gone:
            name, since = next(iter(self._gone.items()))
            if wall - since < FORGET_AFTER and len(self._gone) <= most:
                return
            self._drop(name)

    def changes(self) -> Changes | None:
        """Return what is to be written down since the last `written`, None if there is nothing."""
        if not (self._changed or self._forgotten or self._past_changed):
            return None
        files = {name: self._known[name] for name in sorted(self._changed)}  # folder by folder
        return Changes(files, frozenset(self._forgotten), self._past if self._past_changed else None)

    def written(self) -> None:
        """The changes are written down."""
        self._changed.clear()
        self._forgotten.clear()
        self._past_changed = False

    def _was_there_before(self, name: str) -> bool:
        return _lies_in(self._past.due, name) or not (self._take_existing or self._past.watched_before)

    def _settle_past(self, listing: Listing) -> None:
        unlisted = listing.unlisted or {}
        due = {name for name in unlisted if self._was_there_before(f"{name}/")} | listing.excluded
        due.update(name for name in self._past.due if _lies_in(unlisted, name))
        past = replace(self._past, watched_before=True, due=frozenset(due))
        if past != self._past:
            self._remember(past)

    def _rests(self, name: str) -> bool:
        file = self._known.get(name)
        return file is not None and file.job_id is None and file.gone_since is None and name not in self._wanted

    def _drop(self, name: str) -> None:
        file = self._known.pop(name)
        self._gone.pop(name, None)
        self._under_way.pop(name, None)
        self._changed.discard(name)
        self._forgotten.add(name)
        if file.generation >= self._past.floor:
            self._remember(replace(self._past, floor=file.generation + 1))

    def _note(self, name: str, file: Known) -> None:
        self._known[name] = file
        self._changed.add(name)
        self._forgotten.discard(name)

    def _remember(self, past: Past) -> None:
        self._past = past
        self._past_changed = True


def _as_json(file: Known) -> list[Any]:
    return [file.generation, file.identity, file.job_id, file.gone_since]


def _of_json(values: list[Any]) -> Known:
    generation, identity, job_id, gone_since = values
    return Known(generation, None if identity is None else Identity(*identity), job_id, gone_since)


def _lies_in(folders: Iterable[str], name: str) -> bool:
    return any(name.startswith(f"{folder}/") for folder in folders)
