"""What a running server tells: its log file, the Tango log stream, standard error, Prometheus."""

import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import tango
from prometheus_client.parser import text_string_to_metric_families

from tango_server.addresses import address_of
from tango_server.client.local_server import LocalServer, await_answer
from tests.system.conftest import settings
from tests.system.waiting import reports, submit, until

Put = Callable[..., Path]
Start = Callable[..., LocalServer]
DEBUG, WARN = 5, 3
GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "observe.md"


@pytest.fixture
def deployment() -> str:
    """What a server writes to standard error is its own."""
    return "standalone"


@pytest.fixture
def server(start_server: Start) -> LocalServer:
    """A server whose log has a line for each frame."""
    return start_server("--set", "log_level=DEBUG")


def log_lines(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "state" / "logs" / "petif.log").read_text().splitlines()]


def about(root: Path, job_id: str) -> list[dict[str, Any]]:
    return [line for line in log_lines(root) if line.get("job_id") == job_id]


def convert(proxy: tango.DeviceProxy, source: Path, **more: Any) -> dict[str, Any]:
    (report,) = reports(proxy, submit(proxy, {"source": str(source), **more}))
    return report


CONSUMER = """
import json, sys
from tango.server import Device, command

class Consumer(Device):
    entries = []

    @command(dtype_in=[str])
    def Log(self, entry):  # time, level, device, text, context, thread
        self.entries.append((entry[1], entry[3]))

    @command(dtype_out=str)
    def Entries(self):
        return json.dumps(self.entries)

Consumer.run_server(["consumer", "-nodb", "-host", "127.0.0.1", "-port", sys.argv[1], "-dlist", "test/log/1"])
"""


@pytest.fixture
def consumer() -> Iterator[tango.DeviceProxy]:
    """A consumer of Tango's log stream, as LogViewer is one."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", CONSUMER, str(port)], stdout=subprocess.DEVNULL)
    try:
        address = address_of("127.0.0.1", port, "test/log/1")
        await_answer(address)
        yield tango.DeviceProxy(address)
    finally:
        process.terminate()
        process.wait()


def access(proxy: tango.DeviceProxy) -> str:
    return address_of(proxy.get_dev_host(), int(proxy.get_dev_port()), proxy.dev_name())


def entries(consumer: tango.DeviceProxy) -> list[tuple[str, str]]:
    return [(level, text) for level, text in json.loads(consumer.Entries())]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def scrape(port: int) -> dict[str, float]:
    """Return the samples by name and value of their label, if they have one."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = [sample for family in families for sample in family.samples]
    return {" ".join([sample.name, *sample.labels.values()]): sample.value for sample in samples}


def test_log_records_the_end_of_each_job_by_its_id(proxy: tango.DeviceProxy, root: Path, put: Put) -> None:
    good = convert(proxy, put("qxrd_f32_64.tif"), run_uid="run", seq_num=3)
    bad = convert(proxy, put("not_a_tiff.tif"))
    until(lambda: bool(about(root, bad["job_id"])), "the failure is in the log")
    line = about(root, good["job_id"])[-1]
    assert (line["level"], line["outcome"], line["run_uid"], line["seq_num"]) == ("DEBUG", "converted", "run", 3)
    assert (line["source"], line["output"]) == (good["source"], good["output"])
    assert line["conversion_time"] == good["conversion_time"]
    example = next(text for text in GUIDE.read_text().splitlines() if text.startswith('{"time"'))
    assert set(json.loads(example)) == set(line), "the example of the guide"
    line = about(root, bad["job_id"])[-1]
    assert (line["level"], line["message"]) == ("WARNING", f"failed: {bad['reason']}")


def test_tangos_log_stream_has_the_job_when_a_client_asks_for_it(
    proxy: tango.DeviceProxy, consumer: tango.DeviceProxy, root: Path, put: Put
) -> None:
    proxy.add_logging_target(f"device::{access(consumer)}")
    quiet = convert(proxy, put("qxrd_f32_64.tif", "quiet.tif"))
    until(lambda: bool(about(root, quiet["job_id"])), "the log is written")
    proxy.set_logging_level(DEBUG)
    told = convert(proxy, put("qxrd_f32_64.tif", "told.tif"))
    until(lambda: any("converted" in text for _, text in entries(consumer)), "the conversion is on Tango's log stream")
    ((level, text),) = [entry for entry in entries(consumer) if "converted" in entry[1]]
    assert level == "DEBUG"
    assert text.startswith(f"converted: {told['source']} -> {told['output']}")
    assert text.endswith(f"(job {told['job_id']})")


def test_a_file_name_can_not_forge_an_entry_of_tangos_log(
    proxy: tango.DeviceProxy, consumer: tango.DeviceProxy, root: Path
) -> None:
    proxy.add_logging_target(f"device::{access(consumer)}")
    proxy.set_logging_level(WARN)
    evil = root / "raw" / ']]></log4j:message><forged level="ERROR">\u03b2.tif'
    report = convert(proxy, evil)
    until(lambda: len(entries(consumer)) > 0, "the failure is on Tango's log stream")
    ((level, text),) = entries(consumer)
    assert level == "WARN"
    assert report["job_id"] in text
    assert text.isascii()
    assert "\n" not in text
    assert "]]>" not in text, "which ends the message in a log file of Tango"
    (line,) = about(root, report["job_id"])
    assert line["source"] == str(evil)


@pytest.mark.long
def test_hundreds_of_failures_are_few_lines_on_standard_error(proxy: tango.DeviceProxy, root: Path, put: Put) -> None:
    convert(proxy, put("qxrd_f32_64.tif"))
    assert (root / "state" / "server.log").read_text() == ""
    bad = put("not_a_tiff.tif")
    jobs = reports(proxy, submit(proxy, *({"source": str(bad)} for _ in range(300))))
    until(lambda: all(about(root, job["job_id"]) for job in (jobs[0], jobs[-1])), "the log is written")
    told = (root / "state" / "server.log").read_text().splitlines()
    assert len(told) == 11
    assert "the log file has them" in told[-1]
    assert sum(line.get("outcome") == "failed" for line in log_lines(root)) == 300


def test_the_log_is_whole_when_the_server_has_ended(server: LocalServer, root: Path, put: Put) -> None:
    bad = put("not_a_tiff.tif")
    proxy = tango.DeviceProxy(server.address)
    jobs = reports(proxy, submit(proxy, *[{"source": str(bad)}] * 50))
    server.stop()
    assert {line["job_id"] for line in log_lines(root) if "outcome" in line} == {job["job_id"] for job in jobs}


@pytest.mark.long
def test_init_goes_on_with_one_log_and_the_same_port(start_server: Start, root: Path, put: Put) -> None:
    port = free_port()
    server = start_server(*settings(f"metrics_port={port}"))
    proxy = tango.DeviceProxy(server.address)
    process = psutil.Process(server.pid)
    convert(proxy, put("qxrd_f32_64.tif", "before.tif"))
    until(lambda: scrape(port)["petif_frames_total converted"] == 1, "the frame is counted")
    for _ in range(3):
        proxy.Init()
    bad = convert(proxy, put("not_a_tiff.tif", "after.tif"))
    until(lambda: bool(about(root, bad["job_id"])), "the log is written")
    assert len(about(root, bad["job_id"])) == 1
    until(lambda: scrape(port)["petif_frames_total failed"] == 1, "the failure is counted")
    assert [Path(file.path).name for file in process.open_files()].count("petif.log") <= 1


def test_prometheus_reads_what_the_attributes_say(start_server: Start, put: Put) -> None:
    port = free_port()
    proxy = tango.DeviceProxy(start_server(*settings(f"metrics_port={port}")).address)
    assert scrape(port)["petif_state ON"] == 1
    report = convert(proxy, put("qxrd_f32_64.tif"))
    convert(proxy, put("not_a_tiff.tif"))
    until(lambda: proxy.NumProcessed == 2, "the counters tell of both")
    numbers = scrape(port)
    assert numbers["petif_frames_total converted"] == numbers["petif_frames_total failed"] == 1
    assert numbers["petif_conversion_seconds_total"] == pytest.approx(report["conversion_time"])
    assert numbers["petif_latency_seconds 0.5"] == pytest.approx(proxy.LatencyMedian)
    assert numbers["petif_state ALARM"] == numbers["petif_failed_unacknowledged"] == 1
    proxy.ResetStats()
    until(lambda: scrape(port)["petif_frames_total failed"] == 0, "the counters start anew")


@pytest.mark.long
def test_a_port_that_is_taken_is_in_status_and_frames_are_converted(start_server: Start, put: Put) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        proxy = tango.DeviceProxy(start_server(*settings(f"metrics_port={port}")).address)
        assert proxy.state() == tango.DevState.ON
        assert f"Cannot serve metrics on 127.0.0.1:{port}" in proxy.status()
        assert convert(proxy, put("qxrd_f32_64.tif"))["outcome"] == "converted"
    proxy.Init()
    assert "Cannot serve metrics" not in proxy.status()
    assert scrape(port)["petif_state ON"] == 1


def test_unwritable_log_is_reported_once_and_frames_are_converted(start_server: Start, root: Path, put: Put) -> None:
    (root / "state").mkdir()
    (root / "state" / "logs").write_text("a file is in the way")
    proxy = tango.DeviceProxy(start_server(*settings("log_level=DEBUG")).address)
    for name in ("one.tif", "two.tif"):
        assert convert(proxy, put("qxrd_f32_64.tif", name))["outcome"] == "converted"
    (told,) = (root / "state" / "server.log").read_text().splitlines()
    assert "petif.log: cannot write the log" in told
