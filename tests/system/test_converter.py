"""The ophyd device and a real server: its signals follow the server's attributes, over restarts."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tango

from petif_bluesky import PETifConverter
from petif_bluesky.signals.server import AttributeSignal
from tango_server.client.local_server import LocalServer
from tests.system.waiting import until


@pytest.fixture
def converter(server: LocalServer) -> Iterator[PETifConverter]:
    converter = PETifConverter(server.address, name="converter")
    assert converter.poller.wait_for_first_poll(10).connected
    until(converter.server.reachable.get, "the signals know of the server")
    yield converter
    converter.destroy()


def attribute_signals(converter: PETifConverter) -> list[AttributeSignal]:
    signals = [getattr(converter.server, name) for name in converter.server.component_names]
    return [signal for signal in signals if isinstance(signal, AttributeSignal)]


def plain(value: Any) -> Any:
    if isinstance(value, tango.DevState):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def test_signals_follow_the_servers_attributes(
    converter: PETifConverter, proxy: tango.DeviceProxy, put: Callable[..., Path]
) -> None:
    good, bad = put("qxrd_f32_64.tif"), put("not_a_tiff.tif")
    proxy.AddFiles([str(good), str(bad)])
    until(lambda: (converter.server.converted.get(), converter.server.failed.get()) == (1, 1), "both are seen")
    for signal in attribute_signals(converter):
        if signal.attribute in {"FreeSpace", "FramesPerSecond", "BytesPerSecond", "Status"}:
            continue
        until(
            lambda signal=signal: signal.get() == plain(proxy.read_attribute(signal.attribute).value),
            f"{signal.attribute} is as the server says",
        )
        described = signal.describe()[signal.name]
        expected = {"integer": int, "number": float, "string": str, "array": list}[described["dtype"]]
        assert type(signal.get()) is expected
        assert abs(signal.timestamp - proxy.read_attribute(signal.attribute).time.totime()) < 5
    assert converter.server.failed_files.get() == [str(bad)]
    assert converter.server.free_space.get() > 0


@pytest.mark.long
def test_signals_survive_a_restart_of_the_server(
    start_server: Callable[..., LocalServer], put: Callable[..., Path]
) -> None:
    first = start_server("--port", "0")
    port = first.address.split(":")[2].split("/")[0]
    converter = PETifConverter(first.address, name="converter")
    until(converter.server.reachable.get, "the server is seen")
    workers = converter.server.workers.read()
    first.stop()
    until(lambda: not converter.server.reachable.get(), "its end is seen")
    assert converter.server.workers.get() == workers["converter_server_workers"]["value"] == 1
    start_server("--port", port)
    until(converter.server.reachable.get, "the new one is seen")
    assert converter.server.workers.timestamp > workers["converter_server_workers"]["timestamp"]
    converter.destroy()


def test_device_in_fault_is_unreachable_with_its_reason(start_server: Callable[..., LocalServer], root: Path) -> None:
    configuration = root / "petif.toml"
    configuration.touch()
    server = start_server("--config", str(configuration))
    configuration.write_text("watch_interval = 'soon'\n")
    tango.DeviceProxy(server.address).Init()
    converter = PETifConverter(server.address, name="converter")
    until(lambda: converter.server.state.get() == "FAULT", "the state is seen")
    assert converter.server.reachable.get() is False
    assert "watch_interval: input should be a valid number" in converter.server.status.get()
    converter.destroy()
