"""The Prometheus endpoint, scraped over HTTP and read by Prometheus' own parser."""

import json
import re
import socket
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from socketserver import BaseServer
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY, Metric
from prometheus_client.parser import text_string_to_metric_families

from tango_server.conversion.provenance import package_version
from tango_server.jobs.state_machine.snapshot import Snapshot
from tango_server.observability import metrics
from tango_server.observability.metrics import Metrics, MetricsError, start_metrics

EXAMPLE = Path(__file__).parents[4] / "examples" / "prometheus"
LOCAL = "127.0.0.1"
BUSY = Snapshot(grouped=20, superseded=1, groups=2, groups_failed=1,
    converted=7, skipped=2, placeholders=1, failed=3, overexposed=4, unacknowledged=3, queue_length=12, running=2,
    paused=True, conversion_time_total=0.25, latency_median=0.05, latency_p95=0.125, bytes_in=7_000,
    bytes_out=14_000, free_space=2_000_000_000,
)  # fmt: skip


class Source:
    """Numbers that a test can change."""

    def __init__(self) -> None:
        self.numbers = BUSY
        self.state = "ALARM"

    def start(self, port: int = 0) -> Metrics:
        return start_metrics(LOCAL, port, numbers=lambda: self.numbers, state=lambda: self.state)


@pytest.fixture(scope="module", autouse=True)
def prompt_end() -> Iterator[None]:
    """Let a server look every 20 ms, not every half second, whether it is to end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseServer.serve_forever, "__defaults__", (0.02,))
        yield


@pytest.fixture(scope="module")
def served(prompt_end: None) -> Iterator[tuple[Source, Metrics]]:
    """One endpoint for all that only read it."""
    del prompt_end
    source = Source()
    endpoint = source.start()
    yield source, endpoint
    endpoint.close()


@pytest.fixture
def source(served: tuple[Source, Metrics]) -> Source:
    source, _ = served
    source.numbers, source.state = BUSY, "ALARM"
    return source


@pytest.fixture
def endpoint(source: Source, served: tuple[Source, Metrics]) -> Metrics:
    return served[1]


def port_of(endpoint: Metrics) -> int:
    return int(endpoint.address.split(":")[2].split("/")[0])


def families(address: str) -> list[Metric]:
    with urllib.request.urlopen(address, timeout=10) as answer:
        return list(text_string_to_metric_families(answer.read().decode()))


def scrape(address: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    samples = [sample for family in families(address) for sample in family.samples]
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}


def named(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def test_scrape_holds_every_number_of_the_service(endpoint: Metrics) -> None:
    assert scrape(endpoint.address) == {
        named("petif_info", version=package_version()): 1,
        named("petif_state", state="ALARM"): 1,
        named("petif_frames_total", outcome="converted"): 7,
        named("petif_frames_total", outcome="skipped"): 2,
        named("petif_frames_total", outcome="placeholder"): 1,
        named("petif_frames_total", outcome="failed"): 3,
        named("petif_frames_total", outcome="grouped"): 20,
        named("petif_frames_total", outcome="superseded"): 1,
        named("petif_groups_total", outcome="converted"): 2,
        named("petif_groups_total", outcome="failed"): 1,
        named("petif_overexposed_frames_total"): 4,
        named("petif_conversion_seconds_total"): 0.25,
        named("petif_bytes_total", direction="in"): 7_000,
        named("petif_bytes_total", direction="out"): 14_000,
        named("petif_queue_length"): 12,
        named("petif_running"): 2,
        named("petif_failed_unacknowledged"): 3,
        named("petif_paused"): 1,
        named("petif_free_space_bytes"): 2e9,
        named("petif_latency_seconds", quantile="0.5"): 0.05,
        named("petif_latency_seconds", quantile="0.95"): 0.125,
    }


def test_counters_are_declared_as_counters_and_levels_as_gauges(endpoint: Metrics) -> None:
    kinds = {family.name: family.type for family in families(endpoint.address)}
    counters = {name for name, kind in kinds.items() if kind == "counter"}
    assert counters == {
        "petif_frames",
        "petif_groups",
        "petif_overexposed_frames",
        "petif_conversion_seconds",
        "petif_bytes",
    }
    assert kinds["petif_queue_length"] == kinds["petif_latency_seconds"] == "gauge"
    assert not [name for name in kinds if not name.startswith("petif")]
    assert not [family.name for family in REGISTRY.collect() if family.name.startswith("petif")]


def test_each_scrape_holds_the_numbers_of_its_instant(endpoint: Metrics, source: Source) -> None:
    assert scrape(endpoint.address)[named("petif_queue_length")] == 12
    source.numbers, source.state = Snapshot(queue_length=5), "RUNNING"
    second = scrape(endpoint.address)
    assert second[named("petif_queue_length")] == 5
    assert second[named("petif_state", state="RUNNING")] == 1
    assert named("petif_state", state="ALARM") not in second
    unknown = {"petif_latency_seconds", "petif_free_space_bytes"}  # left out, not 0
    assert not unknown & {name for name, _ in second}


def test_endpoint_can_be_started_again_on_its_port(source: Source) -> None:
    before = set(threading.enumerate())
    first = source.start()
    port = port_of(first)
    scrape(first.address)
    first.close()
    first.close()
    second = source.start(port)
    assert second.address == first.address
    scrape(second.address)
    second.close()
    for thread in set(threading.enumerate()) - before:  # those that answered may take an instant to end
        thread.join(5.0)
        assert not thread.is_alive(), thread
    with pytest.raises(ConnectionRefusedError), socket.create_connection((LOCAL, port)):
        pass


def test_no_endpoint_is_an_error_with_the_remedy(monkeypatch: pytest.MonkeyPatch, source: Source) -> None:
    with socket.create_server((LOCAL, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(MetricsError, match=rf"{LOCAL}:{port}: .* metrics_port to a free port"):
            source.start(port)
    with pytest.raises(MetricsError, match=r"192\.0\.2\.1:.* metrics_host to an address of this machine"):
        start_metrics("192.0.2.1", 0, numbers=Snapshot, state=str)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MetricsError, match=r"petif-bluesky\[metrics\]"):
        source.start(9400)


def test_silent_client_is_sent_away(monkeypatch: pytest.MonkeyPatch, endpoint: Metrics) -> None:
    handler: Any = endpoint._server.RequestHandlerClass
    assert handler.timeout == metrics._CLIENT_TIMEOUT
    monkeypatch.setattr(handler, "timeout", 0.1)
    with socket.create_connection((LOCAL, port_of(endpoint)), timeout=10) as silent:
        assert silent.recv(1) == b""


def expressions() -> list[str]:
    """Return what the examples ask Prometheus for."""
    rules: dict[str, Any] = yaml.safe_load((EXAMPLE / "rules.yml").read_text(encoding="utf-8"))
    dashboard: dict[str, Any] = json.loads((EXAMPLE / "dashboard.json").read_text(encoding="utf-8"))
    alerts = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    return [*alerts, *(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])]


def test_example_expressions_name_metrics_and_labels_that_exist(endpoint: Metrics, source: Source) -> None:
    source.state = "FAULT"  # the one that a rule names
    offered: dict[str, set[tuple[str, str]]] = {}
    for name, labels in scrape(endpoint.address):
        offered.setdefault(name, set()).update(labels)
    used = [selector for text in expressions() for selector in re.findall(r"(petif_\w+)(?:\{([^}]*)\})?", text)]
    assert {name for name, _ in used} == set(offered), "each metric is of use to an alert or a panel"
    for name, labels in used:
        for label, value in re.findall(r'(\w+)="([^"]*)"', labels):
            assert (label, value) in offered[name] | {("instance", "$instance")}, name


def test_example_dashboard_shows_labels_that_exist(endpoint: Metrics) -> None:
    known = {label for _, labels in scrape(endpoint.address) for label, _ in labels}
    dashboard = json.loads((EXAMPLE / "dashboard.json").read_text(encoding="utf-8"))
    variables = {f"${{{entry['name']}}}" for entry in dashboard["templating"]["list"]}
    for panel in dashboard["panels"]:
        assert panel["datasource"]["uid"] in variables, panel["title"]
        for target in panel["targets"]:
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= known, panel["title"]
            assert set(re.findall(r"by \((\w+)\)", target["expr"])) <= known, panel["title"]
