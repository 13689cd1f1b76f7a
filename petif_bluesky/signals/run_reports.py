"""Compact storage for the reports of one run in a session, without duplicates."""

import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import overload

from pydantic import TypeAdapter

from tango_server.client.client import UnknownRunError
from tango_server.limits import MANY_REPORTS
from tango_server.messages import FrameReport, GroupReport

Fetch = Callable[[str, str], Sequence[FrameReport]]
"""Returns up to `MANY_REPORTS` reports of a run after that of a job ("" for the first); raises `LinkError`."""
_BUNDLE = 32  # reports
_REPORT: TypeAdapter[GroupReport | FrameReport] = TypeAdapter(GroupReport | FrameReport)


class RunReports(Sequence[FrameReport]):
    """The known reports of a run, in order of completion.

    They are compressed in bundles, to about 50 bytes per report instead of 3 kB, so that long sessions do not run out
    of memory. One thread at a time gathers; others may read meanwhile.
    """

    def __init__(self, run_uid: str) -> None:
        self.run_uid = run_uid
        self._bundles: list[bytes] = []
        self._latest: list[str] = []
        """JSON of the reports not bundled yet."""
        self._unpacked: tuple[int, list[str]] = (-1, [])
        self._last = ""
        self._gathering = threading.Lock()
        self._state = threading.Lock()

    def gather(self, fetch: Fetch, expected: int) -> None:
        """Fetch new reports; if there are then fewer than `expected`, fetch all of the run again.

        Raises
        ------
        LinkError
            from `fetch`; reports received before are kept.

        """
        with self._gathering:
            try:
                self._fetch_pages(fetch)
            except UnknownRunError:  # the server no longer has the last one
                if not self._last:
                    raise
            if len(self) < expected and self._last:
                self._last = ""
                self._fetch_pages(fetch)

    def _fetch_pages(self, fetch: Fetch) -> None:
        """Fetch page after page until there is nothing new."""
        first = _identity(self[0]) if len(self) else ""
        known: set[str] = set() if self._last or not first else set(map(_identity, self))
        more = True
        while more:
            found = fetch(self.run_uid, self._last)
            if found and not known and _identity(found[0]) == first:  # an old server that returns all reports each time
                known = set(map(_identity, self))
            new = [report for report in found if _identity(report) not in known]
            for report in new:
                self._add(report.model_dump_json(exclude_defaults=True))
            for report in found:
                self._last = report.job_id or self._last
            more = bool(new) and len(found) >= MANY_REPORTS

    def _add(self, text: str) -> None:
        with self._state:
            self._latest.append(text)
            if len(self._latest) == _BUNDLE:
                self._bundles.append(zlib.compress("\n".join(self._latest).encode()))
                self._latest = []

    def __len__(self) -> int:
        with self._state:
            return len(self._bundles) * _BUNDLE + len(self._latest)

    @overload
    def __getitem__(self, place: int) -> FrameReport: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[FrameReport]: ...

    def __getitem__(self, place: int | slice) -> FrameReport | Sequence[FrameReport]:
        places = range(len(self))[place]
        if isinstance(places, range):
            return [self[each] for each in places]
        bundle, number = divmod(places, _BUNDLE)
        return _report_in(self._texts(bundle)[number])

    def __iter__(self) -> Iterator[FrameReport]:
        bundle = 0
        while texts := self._texts(bundle):
            yield from map(_report_in, texts)
            bundle += 1

    def _texts(self, bundle: int) -> list[str]:
        """Return the JSON of one bundle; an empty list after the last one."""
        with self._state:
            if bundle == len(self._bundles):
                return list(self._latest)
            if bundle > len(self._bundles):
                return []
            if self._unpacked[0] != bundle:  # reports are usually read in order
                self._unpacked = bundle, zlib.decompress(self._bundles[bundle]).decode().split("\n")
            return self._unpacked[1]


def _identity(report: FrameReport) -> str:
    return report.job_id or f"{report.stream}/{report.seq_num}/{report.source}#{report.frame}"


def _report_in(text: str) -> FrameReport:
    return _REPORT.validate_json(text)
