"""The reports of one run, as this session keeps them: each once, and packed."""

import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import overload

from tango_server.client.client import UnknownRunError
from tango_server.limits import MANY_REPORTS
from tango_server.messages import FrameReport

Ask = Callable[[str, str], Sequence[FrameReport]]
"""Gives the first `MANY_REPORTS` of a run that were finished after that of a job (""); raises `LinkError`."""
_BUNDLE = 32  # reports


class RunReports(Sequence[FrameReport]):
    """The reports of a run that are known here, in the order in which they were finished.

    They are packed in bundles, to a twentieth of a kilobyte each: those of a night would fill the session's memory
    otherwise, at 3 kB each. One thread at a time gathers; any may read meanwhile.
    """

    def __init__(self, run_uid: str) -> None:
        self.run_uid = run_uid
        self._bundles: list[bytes] = []
        self._latest: list[str] = []
        """JSON of those that make no bundle yet."""
        self._unpacked: tuple[int, list[str]] = (-1, [])
        self._last = ""
        self._gathering = threading.Lock()
        self._state = threading.Lock()

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
        first = _identity(self[0]) if len(self) else ""
        known: set[str] = set() if self._last or not first else set(map(_identity, self))
        more = True
        while more:
            found = ask(self.run_uid, self._last)
            if found and not known and _identity(found[0]) == first:  # a server that gives all of them at each time
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
        """Return the JSON of one bundle; an empty list behind the last one."""
        with self._state:
            if bundle == len(self._bundles):
                return list(self._latest)
            if bundle > len(self._bundles):
                return []
            if self._unpacked[0] != bundle:  # they are read one after the other
                self._unpacked = bundle, zlib.decompress(self._bundles[bundle]).decode().split("\n")
            return self._unpacked[1]


def _identity(report: FrameReport) -> str:
    return report.job_id or f"{report.stream}/{report.seq_num}/{report.source}"


def _report_in(text: str) -> FrameReport:
    return FrameReport.model_validate_json(text)
