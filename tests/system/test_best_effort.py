"""bluesky's own conveniences beside the conversion: no warning (they are errors here), no window, no lost frame."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import tango
from bluesky import RunEngine
from bluesky.callbacks import LiveTable
from bluesky.callbacks.best_effort import BestEffortCallback
from bluesky.plans import count, scan
from bluesky.preprocessors import SupplementalData
from ophyd.sim import SynAxis

from petif_bluesky import ConversionCallback, ConversionPreprocessor, PETifConverter
from petif_bluesky.sim import SimulatedPerkinElmer
from tango_server.client.local_server import LocalServer

POINTS = 4


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The titles of the figures that were opened."""
    opened: list[str] = []
    original = plt.figure

    def figure(name: Any = None, *arguments: Any, **options: Any) -> Any:
        opened.append(str(name))
        return original(name, *arguments, **options)

    previous = mpl.get_backend()
    plt.switch_backend("agg")
    monkeypatch.setattr(plt, "figure", figure)
    yield opened
    plt.close("all")
    plt.switch_backend(previous)


@pytest.fixture
def converter(server: LocalServer) -> Iterator[PETifConverter]:
    converter = PETifConverter(prefix=server.address, name="converter")
    converter.wait_for_connection(timeout=20)
    yield converter
    converter.destroy()


@pytest.fixture
def callback(converter: PETifConverter, root: Path) -> Iterator[ConversionCallback]:
    callback = ConversionCallback(converter, spool=root / "spool.sqlite")
    yield callback
    callback.close()


def events_of(documents: list[tuple[str, dict[str, Any]]], stream: str) -> list[dict[str, Any]]:
    uids = {document["uid"] for name, document in documents if name == "descriptor" and document["name"] == stream}
    return [document["data"] for name, document in documents if name == "event" and document["descriptor"] in uids]


@pytest.mark.parametrize(("plan", "figure"), [("count", "pe_stats_total vs time"), ("scan", "pe_stats_total vs motor")])
def test_conversion_opens_no_window_and_warns_of_nothing(
    plan: str,
    figure: str,
    run_engine: RunEngine,
    converter: PETifConverter,
    callback: ConversionCallback,
    proxy: tango.DeviceProxy,
    root: Path,
    figures: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    motor = SynAxis(name="motor")
    detector = SimulatedPerkinElmer(name="pe", directory=root / "raw", shape=(64, 64), exposure_time=0.01)
    documents: list[tuple[str, dict[str, Any]]] = []
    run_engine.subscribe(BestEffortCallback())
    run_engine.subscribe(callback)
    run_engine.subscribe(lambda name, document: documents.append((name, document)))
    run_engine.preprocessors.append(ConversionPreprocessor(converter, recipe="xdi"))
    monitored = [converter.server.queue_length]
    run_engine.preprocessors.append(SupplementalData(baseline=[motor, converter], monitors=monitored))
    table = LiveTable(["pe_stats_total", "pe_full_file_name"])
    run_engine(count([detector], POINTS) if plan == "count" else scan([detector], motor, -1, 1, POINTS), table)

    assert figures == [figure]  # that of the detector's own hint
    frames = sorted((root / "raw").glob("*.tif"))
    converted = events_of(documents, "converted")
    assert len(frames) == POINTS
    assert sorted(event["converter_raw"] for event in converted) == [str(path) for path in frames]
    assert all(Path(event["converter_output"]).exists() for event in converted)
    (statistics,) = events_of(documents, "conversion")
    assert (statistics["converter_submitted"], statistics["converter_converted"]) == (POINTS, POINTS)
    assert statistics["converter_drained"] is True
    assert len(events_of(documents, "primary")) == POINTS
    assert len(events_of(documents, "baseline")) == 2
    printed = capsys.readouterr().out
    assert "New stream: 'converted'" in printed
    assert "converter_submitted" not in printed
