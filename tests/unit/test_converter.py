"""The converter as an ophyd Device."""

import time
from collections.abc import Iterator
from typing import Any

import bluesky.plans as bp
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.protocols import Readable, Triggerable
from ophyd.utils import ReadOnlyError

from petif_bluesky import PETifConverter
from petif_bluesky.link import TangoLink
from tests.unit.documents import Recorder
from tests.unit.fake_link import PATIENCE, FakeLink

NOBODY = "tango://127.0.0.1:9/petif/converter/1#dbase=no"
UNITS = {
    "submitted": "frames",
    "converted": "frames",
    "skipped": "frames",
    "failed": "frames",
    "placeholders": "frames",
    "conversion_time_total": "s",
    "conversion_time_mean": "s",
    "latency_median": "s",
    "latency_p95": "s",
}
TYPES = {"integer": int, "number": float, "boolean": bool}


@pytest.fixture
def lonely() -> Iterator[PETifConverter]:
    """A converter whose server is not there."""
    began = time.monotonic()
    converter = PETifConverter(NOBODY, name="lonely")
    assert time.monotonic() - began < 0.5
    yield converter
    assert isinstance(converter.link, TangoLink)
    converter.link.close()


def test_construction_needs_no_server(lonely: PETifConverter) -> None:
    assert lonely.link.address == NOBODY
    assert lonely.read().keys() == {f"lonely_{name}" for name in (*UNITS, "drained")}
    assert isinstance(lonely.link, TangoLink)
    assert lonely.link.wait_for_first_look(PATIENCE).down


def test_trigger_and_read_need_no_server(lonely: PETifConverter) -> None:
    assert isinstance(lonely.link, TangoLink)
    assert lonely.link.wait_for_first_look(PATIENCE).down
    lonely.runs.add("run", "first")
    lonely.runs.add("run", "second")
    lonely.current_run = "run"
    began = time.monotonic()
    status = lonely.trigger()
    status.wait(PATIENCE)
    assert time.monotonic() - began < 1.0
    assert status.success
    assert lonely.read()["lonely_submitted"]["value"] == 2
    assert lonely.read()["lonely_drained"]["value"] is False


def test_it_is_what_bluesky_calls_a_detector(converter: PETifConverter) -> None:
    assert isinstance(converter, Readable)
    assert isinstance(converter, Triggerable)
    assert converter.name == "converter"
    assert converter.parent is None


def test_readings_are_described_with_units(converter: PETifConverter) -> None:
    described = converter.describe()
    assert {name: described[f"converter_{name}"]["units"] for name in UNITS} == UNITS
    assert converter.read().keys() == described.keys() == {f"converter_{name}" for name in (*UNITS, "drained")}


@pytest.mark.parametrize("name", [*UNITS, "drained"])
def test_readings_have_the_type_that_is_described(name: str, converter: PETifConverter, link: FakeLink) -> None:
    for run_uid in (None, "run"):
        converter.current_run = run_uid
        converter.trigger().wait(PATIENCE)
        value = converter.read()[f"converter_{name}"]["value"]
        described = converter.describe()[f"converter_{name}"]
        assert described["shape"] == []
        assert type(value) is TYPES[described["dtype"]]
        assert np.dtype(described["dtype_numpy"]).kind == np.asarray(value).dtype.kind


def test_no_reading_can_be_set_from_outside(converter: PETifConverter) -> None:
    with pytest.raises(ReadOnlyError):
        converter.converted.put(3)
    assert converter.converted.get() == 0


def test_it_may_be_counted_as_any_detector(
    run_engine: RunEngine, recorder: Recorder, converter: PETifConverter, link: FakeLink
) -> None:
    run_engine(bp.count([converter], num=2))
    assert [event["data"]["converter_submitted"] for event in recorder.stream("primary")] == [0, 0]
    recorder.check()
    assert link.callers == set()


def test_readings_are_as_of_when_they_were_taken(converter: PETifConverter, link: FakeLink) -> None:
    def stamps() -> set[Any]:
        return {reading["timestamp"] for reading in converter.read().values()}

    before = max(stamps())
    converter.current_run = "run"
    converter.trigger().wait(PATIENCE)
    (taken,) = stamps()
    assert before <= taken <= time.time()
