"""Accepts requests: checks them, writes them to the ledger, and only then answers."""

import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tango_server.conversion.errors import PathError
from tango_server.conversion.files.path_map import PathMap
from tango_server.conversion.files.roots import Roots, caching_resolver, resolve_path
from tango_server.jobs import clock
from tango_server.jobs.capacity import FreeSpace, Limits
from tango_server.jobs.frame_listing import frames_in
from tango_server.jobs.grouping import every_of, grouped
from tango_server.jobs.job import Job
from tango_server.jobs.ledger.booking import Booked
from tango_server.jobs.ledger.ledger import Ledger
from tango_server.jobs.masters import locator
from tango_server.jobs.state_machine.events import (
    Accepted,
    Event,
    GroupsClosed,
    Refused,
    RunsAnnounced,
    Superseded,
)
from tango_server.jobs.validation import frame_job, job_for, mask_in, translated
from tango_server.messages import (
    AcceptedJob,
    FolderAnswer,
    FolderQuery,
    FrameReport,
    MissingAnswer,
    MissingQuery,
    RefusedRequest,
    SubmitAnswer,
    SubmitQuery,
)
from tango_server.recipe import NewFile, Recipe
from tango_server.settings import Settings
from tango_server.text import split_data_set

_log = logging.getLogger(__name__)

NO_PLACES: Mapping[str, dict[str, Any]] = {}
_FOLDERS_MEASURED = 32


class Intake:
    """Accepts requests from any thread. `post` sends an event to the job service; `waiting` gives the queue length."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        *,
        recipe: Callable[[], Recipe],
        waiting: Callable[[], int],
        post: Callable[[Event], None],
    ) -> None:
        self._settings = settings
        self._paths = PathMap.of(settings.path_maps)
        self._ledger = ledger
        self._recipe = recipe
        self._waiting = waiting
        self._post = post
        self._limits = Limits(settings.backlog_limit, settings.free_space_limit, settings.free_space_warning)
        self._one_by_one = threading.Lock()  # so that two callers together do not exceed the limit of the queue
        self._output_folders: OrderedDict[Path, None] = OrderedDict()
        self.space = FreeSpace()

    @property
    def output_folders(self) -> tuple[Path, ...]:
        """The latest output folders: a folder below a root may be a separate file system."""
        with self._one_by_one:
            return tuple(self._output_folders)

    @property
    def disk_problem(self) -> str:
        """Which disk is full, so that no frames are accepted; empty if none."""
        return self._limits.disk_problem(self.space)

    @property
    def disk_warning(self) -> str:
        """Which disk is nearly full; empty if none."""
        return self._limits.disk_warning(self.space)

    @property
    def backlog_limit(self) -> int:
        """Maximum length of the queue."""
        return self._limits.backlog

    def submit(self, query: SubmitQuery) -> SubmitAnswer:
        """Write the requests to the ledger and return their job ids, or why they are refused.

        A refused request of a run is recorded as a failed frame of that run, and so appears in its statistics.

        Raises
        ------
        NoRoomError
            if the queue or a disk is full; no request was accepted, the same call may succeed later.
        LedgerBusyError
            if the ledger can't be written at the moment; likewise.
        """
        roots, now, recipe = self._settings.roots(), clock.now().wall, self._recipe()
        resolve = caching_resolver()
        locate = locator(roots, self._paths, resolve)
        requests = grouped(query.requests, recipe, secrets.token_hex(8))
        jobs = [job_for(raw, recipe, roots, now, self._paths, resolve=resolve, locate=locate) for raw in requests]
        bookable = [job for job in jobs if not job.refused or job.request.run_uid]
        with self._one_by_one:
            if query.requests:
                self._limits.require_room(self._waiting(), len(bookable), self.space)
            booked = self._accept(bookable, query)
            unknown = self._close(query.close_groups)
        for job in bookable:
            if booked[job.job_id].new and (refusal := job.refusal or _unfit(job, booked)) is not None:
                self._post(Refused(refusal))
        if query.runs:
            self._post(RunsAnnounced(frozenset(query.runs)))
        return _answer(jobs, booked, unknown)

    def accept_frames(self, job: Job, indices: range, frames: int, *, expanding: int) -> None:
        """Write a job for these of the `frames` of a file, itself a job, to the ledger; those that are there are left.

        `expanding` jobs of the queue end as soon as others have taken their place, and so do not count.

        Raises
        ------
        NoRoomError, LedgerBusyError
            as `submit` does.
        PathError
            if the output of a frame is not possible.
        """
        roots, now, resolve = self.roots_of(job), clock.now().wall, caching_resolver()
        jobs = [frame_job(job, index, roots, now, self._paths, frames=frames, resolve=resolve) for index in indices]
        with self._one_by_one:
            self._limits.require_room(self._waiting() - expanding, len(jobs), self.space)
            self._accept(jobs, SubmitQuery())

    def roots_of(self, job: Job) -> Roots:
        """Return the roots from when a job was accepted."""
        return job.roots or self._settings.roots()

    def _accept(self, jobs: Sequence[Job], query: SubmitQuery) -> dict[str, Booked]:
        """Write jobs and what the call announces to the ledger; return the entries by job id."""
        accepted = self._ledger.accept(jobs, query.runs, query.run_counts)
        booked = dict(zip((job.job_id for job in jobs), accepted, strict=True))
        self._note_folders({job.output.parent for job in jobs if not job.refused})
        if superseded := frozenset[str]().union(*(each.superseded for each in accepted)):
            self._post(Superseded(superseded))
        if count := sum(each.pending for each in accepted if each.new):
            _log.debug("Accepted %d frames, first %s", count, jobs[0].source)
            self._post(Accepted(count))
        return booked

    def _close(self, groups: Mapping[str, int]) -> list[str]:
        """Keep the numbers of members of groups; return the unknown ones."""
        if not groups:
            return []
        closed = self._ledger.close_groups(groups)
        if closed.reopened:
            self._post(Accepted(closed.reopened))
        if closed.pending:
            self._post(GroupsClosed(closed.pending))
        return closed.unknown

    def _note_folders(self, folders: Collection[Path]) -> None:
        for folder in folders:
            self._output_folders[folder] = None
            self._output_folders.move_to_end(folder)
        while len(self._output_folders) > _FOLDERS_MEASURED:
            self._output_folders.popitem(last=False)

    @property
    def every(self) -> int | None:
        """How many frames the default recipe counts for one output; None if it does not count."""
        return every_of(self._recipe().combine)

    def source(self, path: str) -> Path:
        """Return the resolved path of a source, without a data set, from a client's path; raise `PathError`."""
        return self._settings.roots().source(split_data_set(self._paths.translate(path))[0])

    def frames(self, path: str) -> Iterator[str]:
        """Yield the frames of a folder, or `path` if it is not a folder; raise `PathError`, `OSError`."""
        resolved = self.source(path)
        if resolved.is_dir():
            yield from map(str, frames_in(resolved, roots=self._settings.roots()))
        else:
            yield path

    def listed(self, query: FolderQuery) -> FolderAnswer:
        """Return the resolved paths of the frames in a folder on this host, without sub-folders.

        Names that are not UTF-8 are left out, since JSON can't carry them.

        Raises
        ------
        PathError
            if it is not a readable folder within the roots.
        """
        folder = self.source(query.folder)
        if not folder.is_dir():
            raise PathError(query.folder, "the conversion host has no such folder", "Check the path.")
        try:
            listed = list(frames_in(folder, skip_dark=query.skip_dark, roots=self._settings.roots()))
        except OSError as error:
            raise PathError(query.folder, f"cannot list the folder ({error})", "Check its permissions.") from error
        frames = [str(path) for path in listed if path.name > query.after and _is_utf8(path.name)]
        return FolderAnswer(frames=frames[: query.limit], more=len(frames) > query.limit)

    def missing(self, query: MissingQuery) -> MissingAnswer:
        """Return the paths that are not files within the roots."""
        reasons = {path: self._reason_if_missing(path) for path in query.paths}
        return MissingAnswer(missing=[RefusedRequest(source=path, reason=why) for path, why in reasons.items() if why])

    def _reason_if_missing(self, path: str) -> str:
        try:
            there = self.source(path).is_file()
        except PathError as error:
            return str(error)
        return "" if there else f"{path}: no such file on the conversion host. Check the path."

    def require_allowed(self, recipe: Recipe) -> None:
        """Raise `PathError` if a recipe's output folder, masks or masters are outside the roots, or are no files."""
        output = translated(recipe, self._paths).output
        if isinstance(output, NewFile) and output.folder is not None:
            self._settings.roots().target(Path(output.folder))
        mask_in(recipe, self._settings.roots(), self._paths)
        if recipe.corrections is not None:
            locator(self._settings.roots(), self._paths, resolve_path)(recipe.corrections, False)  # noqa: FBT003 - cached

    def book_failure(self, source: str, reason: str) -> None:
        """Report a file that can't become a job as failed, when no caller waits for an answer."""
        self._post(Refused(FrameReport(source=source, outcome="failed", reason=reason, finished=clock.now().wall)))


def requests_for(
    paths: Sequence[str], submission: str = "", places: Mapping[str, dict[str, Any]] = NO_PLACES
) -> SubmitQuery:
    """Return the call for files by name, with the default recipe; each file of one `submission` becomes one job.

    `places`: fields of their places in groups, by path.
    """
    requests: list[dict[str, Any]] = [{"source": path, **places.get(path, {})} for path in paths]
    if submission:
        for request in requests:
            request["key"] = f"{submission}:{request['source']}"
    return SubmitQuery(requests=requests)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unfit(job: Job, booked: Mapping[str, Booked]) -> FrameReport | None:
    """Return the report of a request that does not fit into its group, None for all others."""
    return replace(job, refused=reason).refusal if (reason := booked[job.job_id].refused) else None


def _answer(jobs: Sequence[Job], booked: Mapping[str, Booked], unknown: Sequence[str]) -> SubmitAnswer:
    """Return the answer for jobs; `booked` are the ledger entries by job id, `unknown` groups can't be closed."""
    accepted: list[AcceptedJob] = []
    refused: list[RefusedRequest] = []
    for job in jobs:
        book = booked.get(job.job_id)
        source, reason = str(job.source), job.refused or (book.refused if book else "")
        if not reason and book is not None and book.source != source:
            reason = (
                f"{source}: cannot accept: its key already belongs to job {book.job_id} ({book.source}). Use a "
                "different key for each frame and submit it again."
            )
        if reason or book is None:
            refused.append(RefusedRequest(source=source, reason=reason))
        else:
            accepted.append(AcceptedJob(job_id=book.job_id, source=source))
    refused += [
        RefusedRequest(
            source=group,
            reason=f"{group}: cannot close this group: no frame of it was accepted, or its history was pruned. "
            "Submit its frames first.",
        )
        for group in unknown
    ]
    return SubmitAnswer(jobs=accepted, refused=refused)
