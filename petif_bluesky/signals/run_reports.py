"""The reports of one run, as this session keeps them: each once, and packed."""

import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import overload

from petif_bluesky.link import UnknownRunError
from petif_bluesky.text_set import TextSet
from tango_server.limits import MANY_REPORTS
from tango_server.messages import FrameReport

Ask = Callable[[str, str], Sequence[FrameReport]]
"""Gives the first `MANY_REPORTS` of a run that were finished after that of a job (""); raises `LinkError`."""
_RAW = -zlib.MAX_WBITS  # without header and checksum, which nobody needs in memory


class RunReports(Sequence[FrameReport]):
    """The reports of a run that are known here, in the order in which they were finished.

    Each is packed by what it has in common with the first one, to a tenth of a kilobyte: those of a night would fill
    the session's memory otherwise, at 3 kB each. One thread at a time gathers; any may read meanwhile.
    """

    def __init__(self, run_uid: str) -> None:
        self.run_uid = run_uid
        self._like = b""
        self._packed: list[bytes] = []
        self._known = TextSet()
        self._last = ""
        self._gathering = threading.Lock()

    def gather(self, ask: Ask, expected: int) -> None:
        """Ask for what is new; if there are fewer than `expected` then, go through all of the run once more.

        Raises
        ------
        LinkError
            as `ask` does; what came before is kept.

        """
        with self._gathering:
            try:
                self._ask_on(ask)
            except UnknownRunError:  # the server has forgotten the last one
                if not self._last:
                    raise
            if len(self) < expected and self._last:
                self._last = ""
                self._ask_on(ask)

    def _ask_on(self, ask: Ask) -> None:
        """Ask for one portion after the other until there is nothing new."""
        more = True
        while more:
            found = ask(self.run_uid, self._last)
            new = sum(self._add(report) for report in found)
            more = new > 0 and len(found) >= MANY_REPORTS

    def _add(self, report: FrameReport) -> bool:
        """Keep a report, if there is none of its frame; return whether it was new."""
        self._last = report.job_id or self._last
        identity = report.job_id or f"{report.stream}/{report.seq_num}/{report.source}"
        if not self._known.add(identity):
            return False
        text = report.model_dump_json(exclude_defaults=True).encode()
        self._like = self._like or text
        packer = zlib.compressobj(wbits=_RAW, zdict=self._like)
        self._packed.append(packer.compress(text) + packer.flush())
        return True

    def __len__(self) -> int:
        return len(self._packed)

    @overload
    def __getitem__(self, place: int) -> FrameReport: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[FrameReport]: ...

    def __getitem__(self, place: int | slice) -> FrameReport | Sequence[FrameReport]:
        if isinstance(place, slice):
            return [self._unpacked(packed) for packed in self._packed[place]]
        return self._unpacked(self._packed[place])

    def __iter__(self) -> Iterator[FrameReport]:
        return map(self._unpacked, self._packed)

    def _unpacked(self, packed: bytes) -> FrameReport:
        return FrameReport.model_validate_json(zlib.decompressobj(wbits=_RAW, zdict=self._like).decompress(packed))
