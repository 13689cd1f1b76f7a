"""The numbers of the service as Prometheus metrics."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from tango_server.conversion.provenance import package_version
from tango_server.jobs.state_machine.snapshot import Snapshot


class ServiceCollector(Collector):
    """Reads the numbers at each scrape.

    `numbers` returns the numbers, `state` the name of the Tango state.
    """

    def __init__(self, numbers: Callable[[], Snapshot], state: Callable[[], str]) -> None:
        self._numbers = numbers
        self._state = state

    def describe(self) -> list[Metric]:
        """Return nothing, so that registering does not collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return the current metrics."""
        now = self._numbers()
        yield InfoMetricFamily("petif", "The conversion server.", {"version": package_version()})
        yield _gauge("petif_state", "1 for the current Tango state of the server.", {self._state(): 1}, "state")
        yield from _totals(now)
        yield from _levels(now)


def _totals(now: Snapshot) -> Iterator[Metric]:
    """Return the counters; to Prometheus, ResetStats looks like a restart of the server."""
    frames = {
        "converted": now.converted,
        "skipped": now.skipped,
        "placeholder": now.placeholders,
        "failed": now.failed,
        "grouped": now.grouped,
        "superseded": now.superseded,
    }
    yield _counter("petif_frames", "Finished frames, by outcome.", frames, "outcome")
    groups = {"converted": now.groups, "failed": now.groups_failed}
    yield _counter("petif_groups", "Finished groups, which combine several frames, by outcome.", groups, "outcome")
    yield _counter("petif_overexposed_frames", "Converted frames with overexposed pixels.", {"": now.overexposed})
    yield _counter("petif_conversion_seconds", "Total conversion time.", {"": now.conversion_time_total})
    size = {"in": now.bytes_in, "out": now.bytes_out}
    yield _counter("petif_bytes", "Bytes of converted frames, read and written.", size, "direction")


def _levels(now: Snapshot) -> Iterator[Metric]:
    """Return the gauges; an unknown value is left out, not 0."""
    yield _gauge("petif_queue_length", "Frames accepted and not yet finished.", {"": now.queue_length})
    yield _gauge("petif_running", "Frames being converted.", {"": now.running})
    failed = {"": now.unacknowledged}
    yield _gauge("petif_failed_unacknowledged", "Failed frames since the last Acknowledge.", failed)
    yield _gauge("petif_paused", "1 while paused.", {"": int(now.paused)})
    if now.free_space is not None:
        free = {"": now.free_space}
        yield _gauge("petif_free_space_bytes", "Free space of the fullest output folder.", free)
    if now.converted or now.groups:
        latency = {"0.5": now.latency_median, "0.95": now.latency_p95}
        text = "Time from file complete (or accepted) to output visible, over the last 1000 converted frames."
        yield _gauge("petif_latency_seconds", text, latency, "quantile")


def _gauge(name: str, text: str, values: Mapping[str, float], label: str = "") -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label] if label else [])
    for word, value in values.items():
        family.add_metric([word] if label else [], value)
    return family


def _counter(name: str, text: str, values: Mapping[str, float], label: str = "") -> Metric:
    family = CounterMetricFamily(name, text, labels=[label] if label else [])
    for word, value in values.items():
        family.add_metric([word] if label else [], value)
    return family
