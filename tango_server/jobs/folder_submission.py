"""Submits folders and long lists of files in a separate thread, so that no client waits for a scan.

The submission is first written to the ledger; after a restart it is scanned again, and files that are already jobs stay
the same jobs.
"""

import logging
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from tango_server.conversion.errors import PathError
from tango_server.jobs.capacity import NoRoomError
from tango_server.jobs.grouping import in_natural_order, is_container, place_of
from tango_server.jobs.intake import NO_PLACES, Intake, requests_for
from tango_server.jobs.ledger.database import LedgerBusyError, LedgerError
from tango_server.jobs.ledger.ledger import Ledger

_log = logging.getLogger(__name__)

_PORTION = 100  # files per transaction, which other callers may have to wait for
_RETRY_INTERVAL = 0.5  # s


class FolderSubmitter:
    """The thread that scans what `submit` was called with."""

    def __init__(self, ledger: Ledger, intake: Intake) -> None:
        self._ledger = ledger
        self._intake = intake
        self._wanted = threading.Event()
        self._ending = threading.Event()
        self._submitting = threading.Lock()
        self.found = 0
        """Files found so far in the folder being scanned; 0 if there is none."""
        self._waiting = {submission: threading.Event() for submission, _ in ledger.submissions()}
        self._wanted.set()  # an earlier server may have left submissions
        self._thread = threading.Thread(target=self._run, name="petif-submission", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of folders and lists not scanned yet."""
        return len(self._waiting)

    def submit(self, paths: Sequence[str], timeout: float = 0.0) -> None:
        """Submit these files and the frames in these folders; durable when it returns.

        Waits for at most `timeout` seconds until the first folder was listed, so that files added afterwards are
        usually left out.
        """
        submission = f"gathered-{secrets.token_hex(8)}"
        listed = self._waiting[submission] = threading.Event()
        try:
            self._ledger.add_submission(submission, paths)
        except LedgerError:
            del self._waiting[submission]
            raise
        self._wanted.set()
        listed.wait(timeout)

    def cancel(self) -> None:
        """Cancel all submissions so far; files that are already jobs stay jobs.

        Raises
        ------
        LedgerBusyError
            if the ledger can't be written; some submissions may be cancelled then.
        """
        with self._submitting:
            for submission in list(self._waiting):
                self._ledger.remove_submission(submission)
                self._forget(submission)

    def close(self, timeout: float) -> None:
        """Stop the thread; the rest is scanned at the next start."""
        self._ending.set()
        self._wanted.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while self._wanted.wait() and not self._ending.is_set():
            self._wanted.clear()
            try:
                submissions = self._ledger.submissions()
            except Exception:  # noqa: BLE001 - thread boundary
                _log.exception("Cannot read the submitted folders from the ledger; retrying with the next one")
                continue
            for submission, paths in submissions:
                try:
                    self._scan(submission, paths)
                except Exception:  # noqa: BLE001 - an error in one folder must not stop the others
                    if self._ending.is_set():
                        return
                    _log.exception("Scanning a submitted folder failed; the rest is scanned at the next start")
                    self._forget(submission)
            self.found = 0

    def _forget(self, submission: str) -> None:
        listed = self._waiting.pop(submission, None)
        if listed is not None:
            listed.set()

    def _scan(self, submission: str, paths: list[str]) -> None:
        self.found = 0
        files, places = self._files(paths), NO_PLACES
        if (every := self._intake.every) is not None:
            frozen = self._frozen(submission, paths)
            files, places = iter(frozen), _places(submission, frozen, every)
        while portion := list(islice(files, min(_PORTION, self._intake.backlog_limit))):
            if (listed := self._waiting.get(submission)) is None:  # cancelled
                return
            listed.set()
            self.found += len(portion)
            if not self._submit_files(submission, portion, places):
                return
        while not self._ending.is_set():
            try:
                self._ledger.remove_submission(submission)
            except LedgerBusyError:
                self._ending.wait(_RETRY_INTERVAL)
            else:
                self._forget(submission)
                return

    def _frozen(self, submission: str, paths: list[str]) -> list[str]:
        """Return the files in natural order, and keep them: after a restart, each must be in the same group."""
        listed = in_natural_order(self._files(paths))
        if listed != paths:
            self._ledger.replace_submission(submission, listed)
        return listed

    def _submit_files(self, submission: str, portion: list[str], places: Mapping[str, dict[str, Any]]) -> bool:
        """Submit files once there is room; return False if the server stops first."""
        query = requests_for(portion, submission, places)
        while not self._ending.is_set():
            try:
                with self._submitting:
                    if submission not in self._waiting:
                        return False
                    answer = self._intake.submit(query)
            except (NoRoomError, LedgerBusyError):
                self._ending.wait(_RETRY_INTERVAL)
                continue
            for refused in answer.refused:
                self._intake.book_failure(refused.source, refused.reason)
            return True
        return False

    def _files(self, paths: list[str]) -> Iterator[str]:
        for path in paths:
            try:
                yield from self._intake.frames(path)
            except (PathError, OSError) as error:
                reason = str(error) if isinstance(error, PathError) else f"{path}: cannot list this folder: {error}"
                self._intake.book_failure(path, reason)


def _places(submission: str, files: Sequence[str], every: int) -> dict[str, dict[str, Any]]:
    """Return the places in groups of files, which are in natural order; frames in a container are counted there."""
    counted = [file for file in files if not is_container(file)]
    return {file: place_of(submission, number, len(counted), every) for number, file in enumerate(counted)}
