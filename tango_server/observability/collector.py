"""The numbers of the service as Prometheus knows them."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from tango_server.conversion.tiff.provenance import package_version
from tango_server.jobs.state_machine.events import Snapshot


class ServiceCollector(Collector):
    """Reads the numbers when it is asked for them; nothing is counted twice.

    `numbers` gives the numbers, `state` the word of the Tango state.
    """

    def __init__(self, numbers: Callable[[], Snapshot], state: Callable[[], str]) -> None:
        self._numbers = numbers
        self._state = state

    def describe(self) -> list[Metric]:
        """Name nothing in advance, so that to be registered is not to be asked for numbers."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return the numbers now."""
        now = self._numbers()
        yield InfoMetricFamily("petif", "The conversion server.", {"version": package_version()})
        yield _gauge("petif_state", "1 for the Tango state that the server is in.", {self._state(): 1}, "state")
        yield from _totals(now)
        yield from _levels(now)


def _totals(now: Snapshot) -> Iterator[Metric]:
    """Return what only grows; ResetStats is to Prometheus what a restart of the server is."""
    frames = {
        "converted": now.converted,
        "skipped": now.skipped,
        "placeholder": now.placeholders,
        "failed": now.failed,
    }
    yield _counter("petif_frames", "Frames that got a report.", frames, "outcome")
    yield _counter("petif_conversion_seconds", "Time that conversions took.", {"": now.conversion_time_total})
    size = {"in": now.bytes_in, "out": now.bytes_out}
    yield _counter("petif_bytes", "Bytes of converted frames, read and written.", size, "direction")


def _levels(now: Snapshot) -> Iterator[Metric]:
    """Return what goes up and down; a number that nobody knows yet is left out, not 0."""
    yield _gauge("petif_queue_length", "Frames that are accepted and have no report yet.", {"": now.queue_length})
    yield _gauge("petif_running", "Frames that are being converted.", {"": now.running})
    failed = {"": now.unacknowledged}
    yield _gauge("petif_failed_unacknowledged", "Failed frames since the last Acknowledge.", failed)
    yield _gauge("petif_paused", "1 while Pause holds conversions back.", {"": int(now.paused)})
    if now.free_space is not None:
        free = {"": now.free_space}
        yield _gauge("petif_free_space_bytes", "Free space of the write root that has the least.", free)
    if now.converted:
        latency = {"0.5": now.latency_median, "0.95": now.latency_p95}
        text = "From file complete (or accepted) to output visible, over the last 1000 converted frames."
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
