"""The reports of the frames of watched files: each once, in order, as far as they have come."""

from tango_server.jobs.watch.frame_reports import FrameReports, Reports
from tango_server.messages import FrameReport, frame_job_id


class Ledger:
    """The reports that have come, and those that were passed on."""

    def __init__(self) -> None:
        self.done: set[str] = set()
        self.unknown: set[str] = set()
        self.passed: list[str] = []
        self.frames = FrameReports(self.query, lambda report: self.passed.append(str(report.job_id)))

    def query(self, job_ids: list[str]) -> Reports:
        assert len(job_ids) <= 200
        return {each: self._report(each) for each in job_ids if each not in self.unknown}

    def _report(self, job_id: str) -> FrameReport | None:
        done = job_id in self.done
        return FrameReport(job_id=job_id, source="/raw/a.h5", outcome="converted", finished=0.0) if done else None

    def add(self, job_id: str, frames: int | None) -> list[str]:
        report = FrameReport(job_id=job_id, source="/raw/a.h5", outcome="skipped", finished=0.0, frames=frames)
        self.frames.add(report)
        return [frame_job_id(job_id, index) for index in range(frames or 0)]

    def poll(self) -> list[str]:
        self.frames.poll(lambda: False)
        passed, self.passed = self.passed, []
        return passed


def test_reports_are_passed_on_once_and_in_order() -> None:
    ledger = Ledger()
    first, second = ledger.add("a", 3), ledger.add("b", 2)
    assert ledger.poll() == []
    ledger.done = {first[0], first[2], *second}
    assert ledger.poll() == first[:1]
    assert not ledger.frames.idle
    ledger.done.add(first[1])
    assert ledger.poll() == [*first[1:], *second]
    assert ledger.frames.idle
    assert ledger.poll() == []


def test_many_frames_are_queried_in_portions() -> None:
    ledger = Ledger()
    frames = ledger.add("a", 1000)
    ledger.done = set(frames)
    assert ledger.poll() == frames
    assert ledger.frames.idle


def test_frames_that_are_no_longer_known_are_passed_over() -> None:
    ledger = Ledger()
    frames = ledger.add("a", 3)
    ledger.unknown, ledger.done = {frames[1]}, {frames[0], frames[2]}
    assert ledger.poll() == [frames[0], frames[2]]
    assert ledger.frames.idle


def test_other_reports_are_not_followed_and_a_stop_is_heeded() -> None:
    ledger = Ledger()
    ledger.add("a", None)
    ledger.add("b", 0)
    assert ledger.frames.idle
    ledger.done = set(ledger.add("c", 2))
    ledger.frames.poll(lambda: True)
    assert ledger.passed == []
