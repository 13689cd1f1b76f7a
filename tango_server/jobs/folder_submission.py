"""Folders and long lists of files become jobs by a thread of their own, so that no client waits for a scan.

What is to be gathered stands on the ledger first; after a restart it is gone through again, and what has become a job
already stays the same job.
"""

import logging
import secrets
import threading
from collections.abc import Iterator, Sequence
from itertools import islice

from tango_server.conversion.errors import PathError
from tango_server.jobs.capacity import NoRoomError
from tango_server.jobs.intake import Intake, requests_for
from tango_server.jobs.ledger.database import LedgerBusyError, LedgerError
from tango_server.jobs.ledger.ledger import Ledger

_log = logging.getLogger(__name__)

_PORTION = 100  # files that become jobs in one transaction; other callers wait for no longer than that
_PATIENCE = 0.5


class FolderSubmitter:
    """The thread that goes through what `gather` was told of."""

    def __init__(self, ledger: Ledger, reception: Intake) -> None:
        self._ledger = ledger
        self._reception = reception
        self._wanted = threading.Event()
        self._ending = threading.Event()
        self._submitting = threading.Lock()
        self.found = 0
        """Files that were found in the folder that is gone through; 0 if there is none."""
        self._waiting = {gathering: threading.Event() for gathering, _ in ledger.gatherings()}
        self._wanted.set()  # an earlier server may have left something
        self._thread = threading.Thread(target=self._run, name="petif-gather", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Folders and lists that were not gone through yet."""
        return len(self._waiting)

    def gather(self, paths: Sequence[str], patience: float = 0.0) -> None:
        """Make jobs of these files and of the frames in these folders; durable when it returns.

        It waits for at most `patience` seconds until the first folder was listed, so that what is put there afterwards
        is not taken, if the file server is quick.
        """
        gathering = f"gathered-{secrets.token_hex(8)}"
        listed = self._waiting[gathering] = threading.Event()
        try:
            self._ledger.gather(gathering, paths)
        except LedgerError:
            del self._waiting[gathering]
            raise
        self._wanted.set()
        listed.wait(patience)

    def cancel(self) -> None:
        """Gather nothing any more of what was asked for so far; files that have become jobs already stay jobs.

        Raises
        ------
        LedgerBusyError
            if the ledger can't be written at present; some of it may be cancelled then.
        """
        with self._submitting:
            for gathering in list(self._waiting):
                self._ledger.gathered(gathering)
                self._forget(gathering)

    def close(self, patience: float) -> None:
        """End the thread; what is left is gone through at the next start."""
        self._ending.set()
        self._wanted.set()
        self._thread.join(patience)

    def _run(self) -> None:
        while self._wanted.wait() and not self._ending.is_set():
            self._wanted.clear()
            try:
                gatherings = self._ledger.gatherings()
            except Exception:  # noqa: BLE001 - the boundary of the thread
                _log.exception("what is to be gathered can't be read; it is tried again with the next folder")
                continue
            for gathering, paths in gatherings:
                try:
                    self._gather(gathering, paths)
                except Exception:  # noqa: BLE001 - whatever one folder holds, the others are gone through
                    if self._ending.is_set():
                        return
                    _log.exception("gathering failed; what is left is gone through at the next start")
                    self._forget(gathering)
            self.found = 0

    def _forget(self, gathering: str) -> None:
        listed = self._waiting.pop(gathering, None)
        if listed is not None:
            listed.set()

    def _gather(self, gathering: str, paths: list[str]) -> None:
        self.found = 0
        files = self._files(paths)
        while portion := list(islice(files, min(_PORTION, self._reception.backlog_limit))):
            if (listed := self._waiting.get(gathering)) is None:  # it was cancelled
                return
            listed.set()
            self.found += len(portion)
            if not self._submit(gathering, portion):
                return
        while not self._ending.is_set():
            try:
                self._ledger.gathered(gathering)
            except LedgerBusyError:
                self._ending.wait(_PATIENCE)
            else:
                self._forget(gathering)
                return

    def _submit(self, gathering: str, portion: list[str]) -> bool:
        """Submit files once there is room for them; return False if the server ends before."""
        query = requests_for(portion, gathering)
        while not self._ending.is_set():
            try:
                with self._submitting:
                    if gathering not in self._waiting:
                        return False
                    answer = self._reception.submit(query)
            except (NoRoomError, LedgerBusyError):
                self._ending.wait(_PATIENCE)
                continue
            for refused in answer.refused:
                self._reception.book_failure(refused.source, refused.reason)
            return True
        return False

    def _files(self, paths: list[str]) -> Iterator[str]:
        for path in paths:
            try:
                yield from self._reception.frames(path)
            except (PathError, OSError) as error:
                reason = str(error) if isinstance(error, PathError) else f"{path}: it can't be listed ({error})"
                self._reception.book_failure(path, reason)
