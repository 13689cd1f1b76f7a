"""The counters since the last reset."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tango_server.jobs.state_machine.snapshot import Snapshot
from tango_server.jobs.state_machine.statistics import Statistics, percentile
from tango_server.messages import FrameReport, Outcome


def report(
    outcome: Outcome = "converted", *, name: str = "a", conversion_time: float = 0.5, latency: float | None = 1.0
) -> FrameReport:
    return FrameReport(
        source=f"/raw/{name}.tif",
        output=None if outcome == "failed" else f"/processed/{name}.tif",
        outcome=outcome,
        reason=f"{name} is broken" if outcome == "failed" else "",
        conversion_time=conversion_time,
        latency=latency,
        finished=1.7e9,
    )


def after(*reports: FrameReport, now: float = 0.0) -> Snapshot:
    """Return the numbers after these reports, all of which came in at 0."""
    statistics = Statistics()
    for one in reports:
        statistics.add(one, 0.0)
    return statistics.snapshot(now, 0, 0)


def test_no_report_means_zero_everywhere() -> None:
    assert after() == Snapshot()


def test_every_report_counts_once_under_its_outcome() -> None:
    counts: dict[Outcome, int] = {"converted": 4, "skipped": 3, "placeholder": 2, "failed": 1}
    numbers = after(*(report(outcome) for outcome, number in counts.items() for _ in range(number)))
    assert (numbers.converted, numbers.skipped, numbers.placeholders, numbers.failed) == (4, 3, 2, 1)
    assert numbers.processed == 10


def test_queue_and_running_frames_are_shown_as_reported() -> None:
    numbers = Statistics().snapshot(0.0, 7, 2)
    assert (numbers.queue_length, numbers.running) == (7, 2)


def test_times_are_those_of_converted_frames_alone() -> None:
    numbers = after(
        report(conversion_time=0.2, latency=1.0),
        report(conversion_time=0.4, latency=3.0),
        report("skipped", conversion_time=50.0, latency=50.0),
        report("placeholder", conversion_time=50.0, latency=50.0),
        report("failed", conversion_time=50.0, latency=50.0),
    )
    assert numbers.conversion_time_total == pytest.approx(0.6)
    assert numbers.conversion_time_mean == pytest.approx(0.3)
    assert (numbers.latency_median, numbers.latency_p95) == (1.0, 3.0)
    assert numbers.frames_per_second == pytest.approx(0.2)


def test_frame_without_latency_leaves_latency_statistics_unchanged() -> None:
    assert after(report(latency=None), report(latency=2.0)).latency_median == 2.0


def test_the_rate_is_of_the_last_ten_seconds() -> None:
    statistics = Statistics()
    for second in range(30):
        statistics.add(report(), float(second))
    assert statistics.snapshot(29.5, 0, 0).frames_per_second == pytest.approx(1.0)
    assert statistics.snapshot(35.5, 0, 0).frames_per_second == pytest.approx(0.4)
    assert statistics.snapshot(60.0, 0, 0).frames_per_second == 0.0


def test_latencies_are_of_the_latest_frames() -> None:
    numbers = after(*(report(latency=100.0) for _ in range(1000)), *(report(latency=1.0) for _ in range(1000)))
    assert numbers.latency_p95 == 1.0


def test_the_last_names_are_of_the_last_report() -> None:
    numbers = after(report(name="a"), report("skipped", name="b"))
    assert (numbers.last_source, numbers.last_output) == ("/raw/b.tif", "/processed/b.tif")


def test_failure_reports_its_reason_and_keeps_the_last_output() -> None:
    numbers = after(report(name="a"), report("failed", name="b"), report("failed", name="c"))
    assert (numbers.last_source, numbers.last_output) == ("/raw/c.tif", "/processed/a.tif")
    assert numbers.last_error == "c is broken"
    assert numbers.failed_files == ("/raw/b.tif", "/raw/c.tif")
    assert numbers.unacknowledged == 2


def test_a_success_does_not_hide_an_earlier_failure() -> None:
    numbers = after(report("failed", name="a"), report(name="b"))
    assert (numbers.last_error, numbers.failed_files) == ("a is broken", ("/raw/a.tif",))
    assert numbers.unacknowledged == 1


def test_latest_failed_files_are_named_and_all_are_counted() -> None:
    numbers = after(*(report("failed", name=str(number)) for number in range(1500)))
    assert numbers.failed == 1500
    assert len(numbers.failed_files) == 1000
    assert numbers.failed_files[-1] == "/raw/1499.tif"


@given(values=st.lists(st.floats(0, 1e6), min_size=1, max_size=200), percent=st.sampled_from([50, 95]))
def test_a_percentile_is_the_nearest_rank(values: list[float], percent: int) -> None:
    expected = np.percentile(values, percent, method="inverted_cdf")
    assert percentile(sorted(values), percent / 100) == expected


def test_a_percentile_of_any_number_of_values_has_the_exact_rank() -> None:
    for length in range(1, 2000):
        values = range(1, length + 1)
        assert percentile(values, 0.95) == (95 * length + 99) // 100
        assert percentile(values, 0.5) == (length + 1) // 2


def test_a_percentile_of_nothing_is_zero() -> None:
    assert percentile([], 0.95) == 0.0


def test_bytes_and_rates_cover_the_last_ten_seconds() -> None:
    one = report().model_copy(update={"bytes_in": 400, "bytes_out": 100})
    numbers = after(one, one, report("skipped"), now=10.0)
    assert (numbers.bytes_in, numbers.bytes_out) == (800, 200)
    assert (numbers.frames_per_second, numbers.bytes_per_second) == (0.2, 80.0)
    later = after(one, one, now=10.001)
    assert (later.bytes_in, later.frames_per_second, later.bytes_per_second) == (800, 0.0, 0.0)
