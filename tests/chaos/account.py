"""The final account of a run, as a table for people and as a verdict."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.chaos.audit import Fault, Finding
from tests.chaos.plan import Kind

_PATH = re.compile(r"\S*/\S+?:? ")
_NUMBER = re.compile(r"\d+(\.\d+)?")
_FINDINGS_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Account:
    """What a run has come to.

    `failures` counts the failed frames by reason, `asked_again` the calls of Submit that had to be repeated by Tango's
    reason, `attempts_again` the attempts at conversions that were lost with their workers, `in_the_middle` the kills
    at a moment when an output was half written. `surprises` are ends and faults of the server that nobody caused.
    """

    seed: int
    seconds: float
    written: int
    unfinished: int
    hostile: int
    accepted: int
    outcomes: Mapping[str, int]
    corrected: int
    sidecars: int
    sidecars_carried: int
    sums: int
    sums_failed: int
    failures: Mapping[str, int]
    asked_again: Mapping[str, int]
    attempts_again: int
    server_starts: int
    surprises: Sequence[str]
    disturbances: Mapping[Kind, int]
    in_the_middle: int
    skipped: Sequence[Kind]
    findings: Sequence[Finding]

    @property
    def clean(self) -> bool:
        """Whether nothing happened that must not happen."""
        return not self.findings and not self.surprises

    def rows(self) -> list[tuple[str, str]]:
        """Return the table: what, how much."""
        faults = Counter(finding.fault for finding in self.findings)
        return [
            ("seed", str(self.seed)),
            ("duration, with the end of the work", f"{self.seconds:.0f} s"),
            ("frames written", str(self.written)),
            ("of these left unfinished by their writer", str(self.unfinished)),
            ("of these hostile", str(self.hostile)),
            ("accepted", str(self.accepted)),
            ("corrected with a dark and a mask", str(self.corrected)),
            ("sidecars of new files", str(self.sidecars)),
            ("of these carried along", str(self.sidecars_carried)),
            ("sums of several frames", str(self.sums)),
            ("of these failed", str(self.sums_failed)),
            *((outcome, str(count)) for outcome, count in sorted(self.outcomes.items())),
            *((f"failed: {reason}", str(count)) for reason, count in sorted(self.failures.items())),
            *((f"Submit repeated: {reason}", str(count)) for reason, count in sorted(self.asked_again.items())),
            ("attempts lost with their worker and made again", str(self.attempts_again)),
            *((kind.value, self._times(kind)) for kind in Kind),
            ("kills while an output was being written", str(self.in_the_middle)),
            ("starts of the server, also without a database", str(self.server_starts)),
            ("ends and faults of the server that nobody caused", str(len(self.surprises))),
            *((fault.value, str(faults[fault])) for fault in Fault),
        ]

    def _times(self, kind: Kind) -> str:
        return "skipped" if kind in self.skipped else str(self.disturbances.get(kind, 0))

    def __str__(self) -> str:
        rows = self.rows()
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:{width}}  {value}" for name, value in rows]
        lines += [str(finding) for finding in self.findings[:_FINDINGS_SHOWN]]
        if len(self.findings) > _FINDINGS_SHOWN:
            lines.append(f"and {len(self.findings) - _FINDINGS_SHOWN} findings more")
        return "\n".join([*lines, *self.surprises])


def plain(reason: str) -> str:
    """Return a reason without paths and numbers, so that like can be counted with like.

    >>> plain("/data/raw/a-00017.tif: gave up after 3 attempts: the worker process died; expected a miracle. Pray.")
    'gave up after N attempts: the worker process died'
    """
    found = reason.partition("; expected")[0]
    return _NUMBER.sub("N", _PATH.sub("", found)).strip()
