r"""The state of the files in a watched folder: listings, stats and reports in, requests out. No I/O, no threads.

::

    came --> wanted --(submitted)--> under way --(reported)--> at rest --(changed, and still again)--> wanted
      \--(there when first watched, ours, or refused)-----------^

A file is wanted when its name appears; its job waits until it is complete. New content of a submitted file is a new
generation of the file, and a new job. So is a file that changed while its job failed, or shortly before: its writer
took longer than the job waited, or ended so late that the file had not settled.
"""

from collections import deque
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import replace
from itertools import islice

from tango_server.jobs.frame_listing import Listing
from tango_server.jobs.watch.known import INTENDED, NOTHING, Identity, Known, Past, Wanted
from tango_server.messages import FrameReport

FORGET_AFTER = 30 * 86_400.0
"""How long a vanished name is remembered, s: files on a mount that was away for days are not new."""
VANISHED_LIMIT = 100_000
_RECENT = 20


class WatchedFolder:
    """The state of one watched folder: `known`, by file name, and `past`.

    With `take_existing=False`, files that exist when the folder is watched for the first time are ignored.
    `settle`: seconds that a job waits after it last saw its file change.
    """

    def __init__(
        self, known: MutableMapping[str, Known], past: Past, *, take_existing: bool, settle: float = 0.0
    ) -> None:
        self._settle = settle
        self.past = past
        self._known = known
        self._take_existing = take_existing
        self._wanted: dict[str, int] = {}
        self._under_way: dict[str, str] = {}
        self._moving: dict[str, Identity | None] = {}
        """Files that have changed, with their identity at the last check: submitted once they stop changing."""
        self._changed: dict[str, float] = {}
        """When files under way were seen to have changed (Unix s)."""
        self._recent: deque[str] = deque(maxlen=_RECENT)
        self._round: Iterator[str] = iter(())
        gone = []
        self._present = 0
        for name, file in known.items():
            if file.job_id:
                self._under_way[name] = file.job_id
            if file.gone_since is not None:
                gone.append((file.gone_since, name))
                continue
            self._present += 1
            if file.job_id == INTENDED:
                self._wanted[name] = file.generation
        self._gone = {name: since for since, name in sorted(gone)}
        self._most_present = self._present + len(gone)

    @property
    def present(self) -> list[str]:
        """The names that existed at the last scan."""
        return [name for name, file in self._known.items() if file.gone_since is None]

    @property
    def idle(self) -> bool:
        """Whether nothing is wanted, under way or changing."""
        return not (self._wanted or self._under_way or self._moving)

    def listed(self, listing: Listing, wall: float) -> None:
        """Apply a listing; `wall` is its time in Unix seconds."""
        self._most_present = max(self._most_present, self._present)
        self._present += len(listing.came) - len(listing.gone)
        for name in listing.gone:
            self._wanted.pop(name, None)
            self._moving.pop(name, None)
            if known := self._known.get(name):
                self._gone[name] = wall
                self._known[name] = replace(known, gone_since=wall)
        for name in listing.came:
            known = self._known.get(name)
            if known is not None:  # it is back, or another file has its name
                self._came_back(name, known)
            elif self._was_there_before(name):
                self._known[name] = Known(self.past.floor)
            else:
                self._wanted[name] = self.past.floor
        self._settle_past(listing)

    def _came_back(self, name: str, known: Known) -> None:
        if known.job_id is None:
            self._moving[name] = None
        else:  # its job may fail without it, and has not seen what came back
            known = replace(known, identity=NOTHING)
        if known.job_id == INTENDED:
            self._wanted[name] = known.generation
        self._gone.pop(name, None)
        self._known[name] = replace(known, gone_since=None)

    def wanted(self) -> list[Wanted]:
        """Return the files to be submitted, oldest first."""
        return [Wanted(name, generation) for name, generation in self._wanted.items()]

    def intended(self, wanted: Wanted, identity: Identity | None) -> None:
        """The file is about to be submitted; this must be stored first.

        After a crash the same request returns the same job, which may have ended with older content.
        """
        known = self._known.get(wanted.name)
        if known is None or known.job_id != INTENDED:
            self._known[wanted.name] = Known(wanted.generation, identity, INTENDED)

    def submitted(self, wanted: Wanted, job_id: str) -> None:
        """The file is a job now."""
        del self._wanted[wanted.name]
        self._under_way[wanted.name] = job_id
        self._known[wanted.name] = replace(self._known[wanted.name], job_id=job_id)

    def left(self, wanted: Wanted, identity: Identity | None) -> None:
        """The file is not submitted: it is an output, or was refused. Later content may be."""
        self._wanted.pop(wanted.name, None)
        self._known[wanted.name] = Known(wanted.generation, identity)

    def under_way(self, limit: int) -> dict[str, str]:
        """Return names and job ids of files whose reports are to be queried; the next call starts with others."""
        asked = dict(islice(self._under_way.items(), limit))
        for name, job_id in asked.items():
            del self._under_way[name]
            self._under_way[name] = job_id
        return asked

    def pending(self, name: str, identity: Identity | None, wall: float) -> None:
        """There is no report yet; `identity` was read before the query, at `wall` (Unix s)."""
        file = self._known[name]
        if identity is not None and identity != file.identity:
            self._changed[name] = wall
            self._known[name] = replace(file, identity=identity)

    def reported(self, name: str, report: FrameReport, identity: Identity | None) -> None:
        """The file's job has ended; `identity` was read after the report, None if there is no file.

        A conversion has read the current content if the sizes agree, a failed job if the file has not changed since
        the last check during the job, and not shortly before its end. Otherwise the file is to be submitted again.
        """
        del self._under_way[name]
        file = self._known[name]
        seen = identity
        if report.outcome == "converted" and identity is not None:
            in_place = report.output == report.source
            seen = identity if in_place or report.bytes_in == identity.size else NOTHING
        elif report.outcome in {"failed", "placeholder"}:
            unsettled = report.finished - self._changed.get(name, 0.0) < self._settle
            seen = NOTHING if identity is None or unsettled else file.identity or identity
        if identity is not None and identity != seen:
            self._moving[name] = identity
        self._changed.pop(name, None)
        self._recent.append(name)
        self._known[name] = replace(file, job_id=None, identity=seen or file.identity)

    def lost(self, name: str) -> None:
        """The file's job is unknown (the ledger was set aside): submit the file like a new one."""
        there = self._known[name].gone_since is None
        self._drop(name)
        if there:
            self._wanted[name] = self.past.floor

    def to_check(self, limit: int) -> list[str]:
        """Return files at rest to be checked for new content.

        First those that have changed, then the latest ones, then the others in turn.
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
        """A file at rest is now `identity`, None if it can't be read. Once changed and the same twice, it is wanted."""
        last = self._moving.pop(name, None)
        file = self._known.get(name)
        if file is None or identity is None or identity == file.identity:
            return
        if file.identity is None:
            self._known[name] = replace(file, identity=identity)
        elif identity == last:
            self._wanted[name] = file.generation + 1
        else:
            self._moving[name] = identity

    def forget(self, wall: float) -> None:
        """Forget names that vanished long ago, and the oldest ones if there are more than ever existed together.

        So a mount that was away for a while, and looked empty, brings no old frames when it is back.
        """
        most = max(VANISHED_LIMIT, self._most_present)
        while self._gone:
            name, since = next(iter(self._gone.items()))
            if wall - since < FORGET_AFTER and len(self._gone) <= most:
                return
            self._drop(name)

    def _was_there_before(self, name: str) -> bool:
        return _lies_in(self.past.due, name) or not (self._take_existing or self.past.watched_before)

    def _settle_past(self, listing: Listing) -> None:
        unlisted = listing.unlisted or {}
        due = {name for name in unlisted if self._was_there_before(f"{name}/")} | listing.excluded
        due.update(name for name in self.past.due if _lies_in(unlisted, name))
        self.past = replace(self.past, watched_before=True, due=frozenset(due))

    def _rests(self, name: str) -> bool:
        file = self._known.get(name)
        return file is not None and file.job_id is None and file.gone_since is None and name not in self._wanted

    def _drop(self, name: str) -> None:
        file = self._known.pop(name)
        self._gone.pop(name, None)
        self._under_way.pop(name, None)
        if file.generation >= self.past.floor:
            self.past = replace(self.past, floor=file.generation + 1)


def _lies_in(folders: Iterable[str], name: str) -> bool:
    return any(name.startswith(f"{folder}/") for folder in folders)
