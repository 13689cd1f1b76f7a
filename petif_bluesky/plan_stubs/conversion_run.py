"""A run that converts existing files and records the result of each."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bluesky import plan_stubs as bps
from bluesky.utils import MsgGenerator

from petif_bluesky.callback import default_spool_path
from petif_bluesky.converter_base import ConverterBase
from petif_bluesky.delivery.run_groups import Request, RunGroups
from petif_bluesky.delivery.sender import Sender
from petif_bluesky.documents.bookings import CONVERSION
from petif_bluesky.documents.frame import Frame
from petif_bluesky.plan_stubs.background import in_background
from petif_bluesky.plan_stubs.run_wrapper import RunWrapper
from petif_bluesky.plan_stubs.start_facts import start_facts
from petif_bluesky.spool import Spool, SpooledRequest
from tango_server.messages import FrameReport
from tango_server.recipe import Recipe


def conversion_run(
    converter: ConverterBase,
    frames: Sequence[Frame],
    *,
    recipe: Recipe | None,
    md: Mapping[str, Any],
    timeout: float,
    spool: str | None,
) -> MsgGenerator[str]:
    """Convert frames in a new run; return its uid.

    One thread writes the requests to the spool and another sends them to the server; the RunEngine waits for the
    reports for at most `timeout` seconds. Requests still in the spool are sent by the next session that uses it.
    """
    facts = start_facts(converter, recipe, md.get(CONVERSION))
    mail = _Mail(converter, spool or converter.runs.spool_path or default_spool_path(converter.client.address))

    def run() -> MsgGenerator[str]:
        uid: str = yield from bps.open_run(dict(md))
        submitted = [replace(frame, run_uid=uid, recipe=facts["recipe"]) for frame in frames]
        yield from in_background(lambda: mail.post(uid, submitted), "petif-post")
        yield from bps.close_run()
        return uid

    try:
        return (yield from RunWrapper(converter, lambda _given: facts, timeout=timeout).wrapped(run()))
    finally:
        mail.close()


class _Mail:
    """Sends the requests of one run to the server; a `FrameSource` whose frames are all submitted at once."""

    waiting = 0

    def __init__(self, converter: ConverterBase, path: str | Path) -> None:
        self._book = converter.runs
        self._spool = Spool(Path(path))
        self._groups = RunGroups(self._spool.put_all, self._book.note_open_groups)
        self._sender = Sender(self._spool, converter.client, set_aside=self._set_aside)
        self._run_uid = ""
        self.spool_path = self._spool.path

    def post(self, run_uid: str, frames: Sequence[Frame]) -> None:
        """Start sending the requests of a run."""
        self._run_uid = run_uid
        self._book.callbacks.add(self)
        self._book.announce(run_uid)
        for frame in frames:
            self._book.add(run_uid, frame.key)
        self._spool.announce(run_uid)
        self._groups.put(frames)
        self._note(self._groups.close(run_uid))

    def release(self, run_uid: str) -> None:
        """Do nothing: no frame waits for readings."""

    def fill_map(self, run_uid: str, reports: Sequence[FrameReport]) -> int:
        """Request placeholders for points of the run's map whose frames failed; return how many."""
        return self._note(self._groups.fill(run_uid, reports))

    def _note(self, requests: Sequence[Request]) -> int:
        for request in requests:
            self._book.add(self._run_uid, request["key"])
        self._sender.wake()
        return len(requests)

    def close(self) -> None:
        """Stop sending without waiting, and close the run."""
        self._book.callbacks.discard(self)
        self._sender.close(0.0)
        self._spool.close()
        if self._run_uid:
            self._book.close(self._run_uid)

    def _set_aside(self, entry: SpooledRequest) -> None:
        """Runs in the sender's thread."""
        if entry.request is not None:
            self._book.set_aside(entry.run_uid, entry.key)
