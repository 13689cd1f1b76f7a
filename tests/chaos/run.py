"""One run: the plan, the load, the disturbances, and the audit."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tests.chaos.account import Account, plain
from tests.chaos.audit import Auditor, Claims
from tests.chaos.client import Client, request_of
from tests.chaos.detector import Detector, Written
from tests.chaos.disturber import Disturber
from tests.chaos.facility import Facility
from tests.chaos.frames import PlannedFrame, planned_frame
from tests.chaos.ground import Ground
from tests.chaos.line import Line, NoAnswerError
from tests.chaos.plan import Disturbance, Kind, plan
from tests.chaos.scale import Scale
from tests.chaos.sums import Sums
from tests.chaos.warden import Warden

_LOOK = 0.2
_NEWS = 10.0
_START_PATIENCE = 30.0
_FAULT_PATIENCE = 5.0
"""How much longer than its disk is full a server may be at fault, in s."""
_LOST_ATTEMPT = ("the worker process died", "its worker was ended")

Say = Callable[[str], None]
Answer = TypeVar("Answer")


def run_chaos(seed: int, scale: Scale, folder: Path, say: Say) -> Account:
    """Let chaos reign in `folder` and return the account. `say` is told what happens.

    Raises
    ------
    TimeoutError
        if the server does not start, or can't be disturbed any more since it does not come back.

    """
    frames = tuple(planned_frame(seed, number) for number in range(scale.frames))
    with ExitStack() as stack:
        ground = stack.enter_context(Ground(folder, scale, frames))
        disturbances = plan(seed, scale, ground.kinds)
        _introduce(say, seed, frames, disturbances, ground)
        facility = stack.enter_context(Facility(folder, _settings(scale, ground)))
        _await_server(facility)
        account = _Run(seed, scale, ground, facility, frames, disturbances, say).account()
    left = [f"a process of the server is left: {process}" for process in facility.survivors()]
    return replace(account, surprises=[*account.surprises, *left])


class _Run:
    """What takes part in one run."""

    def __init__(
        self,
        seed: int,
        scale: Scale,
        ground: Ground,
        facility: Facility,
        frames: tuple[PlannedFrame, ...],
        disturbances: Sequence[Disturbance],
        say: Say,
    ) -> None:
        self._seed = seed
        self._scale = scale
        self._ground = ground
        self._facility = facility
        self._say = say
        self._line = Line(facility.address)
        self._sums = Sums(seed, frames)
        self._detector = Detector(seed, frames, scale, ground, self._sums.numbers)
        self._client = Client(facility.address, self._detector.announced, seed, partial(request_of, ground))
        self._summing = Client(facility.address, self._detector.summed, seed + 1, self._sums.request)
        self._disturber = Disturber(disturbances, facility, ground, say)
        self._warden = Warden(facility.address, scale.blocked[1] + _FAULT_PATIENCE)

    def account(self) -> Account:
        began = time.monotonic()
        parts = (self._detector, self._client, self._summing, self._disturber, self._warden)
        try:
            for part in parts:
                part.start()
            self._watch()
        finally:
            for part in reversed(parts):
                part.stop()
        return self._audited(self._detector.written(), time.monotonic() - began)

    def _watch(self) -> None:
        """Wait until all is taken, disturbed and reported, and tell of it now and then."""
        scale, news, began = self._scale, 0.0, time.monotonic()
        calm_since = None
        look = threading.Event()
        while self._busy or self._client.left or self._summing.left:
            self._raise_faults()
            now = time.monotonic()
            calm_since = None if self._busy else calm_since or now
            if calm_since is not None and now > calm_since + scale.patience:
                left = self._client.left + self._summing.left
                self._say(f"{left} frames have no report after {scale.patience:.0f} s of calm")
                return
            if now > began + 2 * scale.seconds + scale.patience:
                raise TimeoutError(f"the server does not come back; {self._facility.log} tells more")
            if now > news:
                news = now + _NEWS
                self._say(self._progress())
            look.wait(_LOOK)

    @property
    def _busy(self) -> bool:
        return self._detector.taking or self._disturber.disturbing

    def _raise_faults(self) -> None:
        for fault in (self._client.fault, self._summing.fault, self._disturber.fault):
            if fault is not None:
                raise fault

    def _progress(self) -> str:
        outcomes = Counter(report["outcome"] for report in list(self._client.reports.values()))
        told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
        return (
            f"{self._detector.number_written} written, {len(self._client.job_ids)} accepted, "
            f"{told or 'none reported'}; {self._disturber.done.total()} disturbances"
        )

    def _audited(self, written: list[Written], seconds: float) -> Account:
        client, facility = self._client, self._facility
        job_ids = sorted({job_id for ids in client.job_ids.values() for job_id in ids})
        line = self._line
        last, _ = _patiently(lambda: line.reports(job_ids), self._scale.patience)
        runs = {one.frame.run_uid for one in written if one.frame.run_uid}
        submitted = _patiently(lambda: {run: line.frames_of(run) for run in runs}, self._scale.patience)
        claims = Claims(client.job_ids, client.refused, client.reports, last, submitted)
        lines = "".join(json.dumps(report) + "\n" for report in last.values())
        (self._ground.folder / "reports.jsonl").write_text(lines)
        statistics = _patiently(lambda: line.statistics(self._sums.run_uid), self._scale.patience)
        summed = self._sums.findings(
            self._summing.job_ids, self._summing.reports, statistics, self._ground, self._scale.size
        )
        auditor = Auditor(self._seed, self._scale.size, seconds, self._ground)
        log = "".join(path.read_text(errors="replace") for path in self._ground.saved_logs())
        ends = [f"the server ended by itself, with code {life.code}" for life in facility.surprises()]
        return Account(
            seed=self._seed,
            seconds=seconds,
            written=len(written),
            unfinished=sum(bool(one.frame.unfinished) for one in written),
            hostile=sum(one.frame.hostile for one in written),
            accepted=len(client.job_ids),
            outcomes=Counter(report["outcome"] for report in last.values()),
            corrected=sum(bool(report.get("masters")) for report in last.values()),
            sidecars=sum(bool(one.sidecar_digest) and not one.frame.in_place for one in written),
            sidecars_carried=sum(report["sidecar"] == "carried" for report in last.values()),
            failures=Counter(plain(report["reason"]) for report in last.values() if report["outcome"] == "failed"),
            asked_again=client.asked_again,
            attempts_again=sum(log.count(words) for words in _LOST_ATTEMPT),
            server_starts=len(facility.server.lives) + 1,
            surprises=[*ends, *self._warden.found],
            disturbances=self._disturber.done,
            in_the_middle=self._disturber.in_the_middle,
            skipped=[kind for kind in Kind if kind not in self._ground.kinds],
            sums=statistics.groups,
            sums_failed=statistics.groups_failed,
            findings=[*auditor.findings(written, claims, self._sums.outputs(self._ground)), *summed],
        )


def _introduce(
    say: Say, seed: int, frames: Sequence[PlannedFrame], disturbances: Sequence[Disturbance], ground: Ground
) -> None:
    say(f"seed {seed}: {len(frames)} frames, {len(disturbances)} disturbances, in {ground.folder}")
    for kind in Kind:
        if kind not in ground.kinds:
            say(f"without {kind}: it takes the right to mount")
    for disturbance in disturbances:
        say(f"  {disturbance}")


def _settings(scale: Scale, ground: Ground) -> dict[str, Any]:
    return {
        "read_roots": [str(ground.root)],
        "write_roots": [str(ground.root), str(ground.output_folder)],
        "state_dir": str(ground.state),
        "numworkers": 2,
        "free_space_warning": 4 * scale.frame_bytes,
        "free_space_limit": 2 * scale.frame_bytes,
        **scale.settings,
    }


def _await_server(facility: Facility) -> None:
    """Return when the server answers; raise `TimeoutError` with the end of its log."""
    try:
        _patiently(lambda: Line(facility.address).ask("Submit", "{}"), _START_PATIENCE)
    except NoAnswerError as error:
        tail = facility.log.read_text(errors="replace")[-2000:]
        raise TimeoutError(f"the server does not answer ({error}); its log ends with:\n{tail}") from error


def _patiently(ask: Callable[[], Answer], patience: float) -> Answer:
    """Return the answer of a server that may be being started; raise `NoAnswerError` after `patience` s."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return ask()
        except NoAnswerError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_LOOK)
