"""What travels with a frame, out of the documents of its run."""

import contextlib
import copy
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petif_bluesky.documents.errors import MalformedDocumentError
from petif_bluesky.documents.json_values import UnfitError, plain
from petif_bluesky.documents.run_metadata import OWN_KEYS, RunMetadata
from petif_bluesky.metadata import MetadataSelection
from tango_server.limits import LARGEST_METADATA
from tango_server.messages import FrameRequest
from tests.unit.documents import IMAGE, IN_STREAM, NUMBER, ComposedRun, FrameFinder

SETTINGS = {
    "pe": {
        "data": {"pe_exposure_time": 100.0, "pe_mask": [1, 2]},
        "timestamps": {"pe_exposure_time": 1.0, "pe_mask": 1.0},
        "data_keys": {"pe_exposure_time": {**NUMBER, "units": "ms"}, "pe_mask": {**NUMBER, "dtype": "array"}},
    },
    "mono": {
        "data": {"mono_energy": 42.7},
        "timestamps": {"mono_energy": 1.0},
        "data_keys": {"mono_energy": {**NUMBER, "units": "keV"}},
    },
}


class Reader:
    """Takes documents as the callback does, and keeps frames with their metadata."""

    def __init__(self, selection: MetadataSelection | None = None) -> None:
        self.finder = FrameFinder(metadata=selection)
        self.read: list[Mapping[str, Any]] = []

    def __call__(self, name: str, document: Any) -> None:
        if name == "descriptor" and document["name"] == "primary":
            document = {**document, "configuration": SETTINGS}
        before = copy.deepcopy(document)
        self.read += [frame.metadata for frame in self.finder.feed(name, document)]
        assert document == before


def described(*descriptors: Any, start: Any = None) -> RunMetadata:
    """What is known of a run after its start and some descriptors."""
    metadata = RunMetadata(MetadataSelection())
    metadata.begin(start or {"uid": "run"}, None)
    for uid, keys in descriptors:
        metadata.describe({"uid": uid, "run_start": "run", "name": uid, "data_keys": keys})
    return metadata


def one_frame(reader: Reader, data: dict[str, Any], *, baseline: dict[str, Any] | None = None, **start: Any) -> Any:
    run = ComposedRun(reader, **start)
    if baseline is not None:
        run.stream("baseline", m=dict.fromkeys((key.removeprefix("m_") for key in baseline), NUMBER))
        run.event("baseline", **baseline)
    keys = dict.fromkeys((key.removeprefix("pe_") for key in data), NUMBER)
    run.stream(pe={"image": IMAGE, **keys})
    run.event(pe_image=run.resource()(0), **data)
    run.stop()
    (metadata,) = reader.read
    FrameRequest.model_validate_json(json.dumps({"source": "/raw/a.tif", "metadata": metadata}))
    return metadata


def test_metadata_are_flat_with_the_names_of_documents() -> None:
    metadata = one_frame(
        Reader(),
        {"pe_total": 5},
        baseline={"m_phi": 1.5},
        sample_name="diamond",
        scan_id=3,
        secret="no",
        sample={"a": 1},
    )
    time = metadata.pop("time")
    assert isinstance(time, float)
    assert metadata == {
        "sample_name": "diamond",
        "scan_id": 3,
        "pe_exposure_time": 100.0,
        "m_phi": 1.5,
        "pe_total": 5,
        "seq_num": 1,
        "number": 0,
        "shape": [48, 64],
        "exposure_time": pytest.approx(0.1),
        "timestamps": {"pe_total": 1.7e9},
        "units": {"pe_exposure_time": "ms"},
    }


def test_units_are_sent_where_known() -> None:
    metadata = described(
        ("b", {"det_z": {**NUMBER, "units": "m"}, "note": NUMBER}),
        ("d", {"pe_image": IMAGE, "omega": {**NUMBER, "units": "deg"}}),
        start={"uid": "run", "wavelength": 0.29},
    )
    metadata.read_baseline({"descriptor": "b", "data": {"det_z": 0.35, "note": 1}})
    event = {"data": {"omega": 1.5}, "time": 1.7e9, "timestamps": {"omega": 1.7e9}}
    found = metadata.of("d", "pe_image", seq_num=1, event=event)
    assert found["units"] == {"det_z": "m", "omega": "deg"}
    assert (found["wavelength"], found["det_z"], found["omega"]) == (0.29, 0.35, 1.5)


def test_header_fields_come_from_the_start_document() -> None:
    recipe = {"format": "esperanto", "esperanto": {"omega": {"start": "om0", "step": "dom"}, "distance": "detz"}}
    reader = Reader()
    found = one_frame(reader, {}, conversion={"recipe": recipe}, om0=-10.0, dom=0.5, detz=300.0, secret=1)
    assert {name: found[name] for name in ("om0", "dom", "detz")} == {"om0": -10.0, "dom": 0.5, "detz": 300.0}
    assert "secret" not in found


def test_keys_are_chosen_by_patterns() -> None:
    selection = MetadataSelection(
        start=("sec*", "sample"), configuration=("mono_*",), baseline=("m_chi",), event=("pe_total",)
    )
    metadata = one_frame(
        Reader(selection),
        {"pe_total": 5, "pe_other": 6},
        baseline={"m_phi": 1.5, "m_chi": 2.5},
        sample_name="diamond",
        secret="yes",
        sample={"a": 1},
    )
    assert set(metadata) - OWN_KEYS == {"secret", "mono_energy", "m_chi", "pe_total"}
    assert metadata["left_out"] == {"sample": "it is a dict, not a single value"}


def test_later_reading_replaces_earlier_ones_even_if_missing() -> None:
    metadata = one_frame(
        Reader(), {"m_phi": 7.5, "m_chi": math.nan}, baseline={"m_phi": 1.5, "m_chi": 2.5, "m_omega": np.float32(0.5)}
    )
    assert (metadata["m_phi"], metadata["m_omega"]) == (7.5, 0.5)
    assert "m_chi" not in metadata
    assert metadata["left_out"] == {"m_chi": "it is nan, which JSON cannot represent"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(1.5), 1.5),
        (np.int32(-3), -3),
        (np.bool_(True), True),
        (np.array(2.5), 2.5),
        (np.str_("a"), "a"),
        (b"text", "text"),
        ("half \ud800", "half ?"),
        ("x" * 1000, "x" * 1000),
        ("x" * 5000, "x" * 1000 + "…"),
    ],
)
def test_single_values_become_json_values(value: Any, expected: Any) -> None:
    found = plain(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    "value",
    [math.inf, -math.inf, math.nan, np.float32("nan"), b"\xff", 2**63, None, [1.0], {}, np.ones(1), 1j, object()],
)
def test_values_without_json_form_are_left_out(value: Any) -> None:
    with pytest.raises(UnfitError):
        plain(value)


def test_reserved_names_are_left_out() -> None:
    metadata = one_frame(Reader(), {"shape": 5, "seq_num": 77})
    assert (metadata["shape"], metadata["seq_num"]) == ([48, 64], 1)
    assert set(metadata["left_out"]) == {"shape", "seq_num"}


@pytest.mark.parametrize("length", [10, 900])
def test_least_important_metadata_are_dropped_first(length: int) -> None:
    baseline = {f"m_{number}": "é" * length for number in range(2000)}
    run = described(
        ("b", dict.fromkeys(baseline, NUMBER)),
        ("d", {"pe_image": IMAGE, "pe_total": NUMBER}),
        start={"uid": "run", "sample_name": "diamond"},
    )
    run.read_baseline({"descriptor": "b", "data": baseline})
    event = {"data": {"pe_total": 5}, "time": 1.7e9, "timestamps": {"pe_total": 1.7e9}}
    metadata = run.of("d", "pe_image", seq_num=1, event=event)
    FrameRequest.model_validate_json(json.dumps({"source": "/raw/a.tif", "metadata": metadata}))
    assert LARGEST_METADATA // 2 < len(json.dumps(metadata)) <= LARGEST_METADATA
    assert metadata["pe_total"] == 5
    assert "m_1999" in metadata
    assert "m_0" not in metadata
    assert " more" in metadata["left_out"]["..."]


@given(
    st.dictionaries(st.text(max_size=2000), st.one_of(st.text(), st.binary(), st.floats(), st.integers()), max_size=30)
)
@settings(max_examples=40)
def test_server_accepts_the_metadata_of_any_event(data: dict[str, Any]) -> None:
    event = {"data": data, "timestamps": dict.fromkeys(data, math.nan), "time": math.inf, "filled": {}}
    metadata = described().of("descriptor", "pe_image", seq_num=1, shape=(4, 5), event=event)
    request = {"source": "/raw/a.tif", "metadata": metadata}
    taken = FrameRequest.model_validate_json(json.dumps(request, allow_nan=False))
    assert len(json.dumps(taken.metadata)) <= LARGEST_METADATA


def test_server_accepts_thousands_of_long_names() -> None:
    data = {f"{number}" + "é" * 200: 1.0 for number in range(2000)}
    event = {"data": data, "timestamps": dict.fromkeys(data, 1.7e9), "time": 1.7e9}
    metadata = described().of("descriptor", "pe_image", seq_num=1, shape=(4, 5), event=event)
    assert len(json.dumps(metadata)) <= LARGEST_METADATA
    assert metadata["shape"] == [4, 5]
    assert metadata["left_out"]["timestamps"] == "the metadata are too large"


def test_fly_scan_frames_have_metadata_without_events() -> None:
    reader = Reader()
    run = ComposedRun(reader, sample_name="diamond")
    run.stream("primary", pe={"image": IN_STREAM})
    run.stream_resource("pe_image", "file:///d/", "{:d}.tif")(3, 4, seq_num=4)
    assert reader.read == [
        {
            "sample_name": "diamond",
            "pe_exposure_time": 100.0,
            "exposure_time": pytest.approx(0.1),
            "seq_num": 4,
            "number": 0,
            "shape": [48, 64],
            "units": {"pe_exposure_time": "ms"},
        }
    ]


def test_baseline_can_be_an_event_page() -> None:
    source = ComposedRun(lambda _name, _document: None)
    source.stream("baseline", m={"phi": NUMBER})
    for phi in (1.0, 2.0):
        source.event("baseline", m_phi=phi)
    reader = Reader()
    run = ComposedRun(reader)
    reader("descriptor", {**source.recorder.of("descriptor")[0], "run_start": run.uid})
    run.page("event", source.recorder.of("event"))
    run.stream(pe={"image": IMAGE})
    run.event(pe_image=run.resource()(0))
    assert [found["m_phi"] for found in reader.read] == [2.0]


def test_configuration_is_that_of_the_images_object() -> None:
    keys = {"pe_image": IMAGE}
    metadata = RunMetadata(MetadataSelection())
    for uid, stated in (("d", {"object_keys": {"pe": ["pe_image"]}}), ("e", {"object_keys": {"mono": ["pe_image"]}})):
        metadata.describe({"uid": uid, "run_start": "run", "data_keys": keys, "configuration": SETTINGS, **stated})
    assert metadata.of("d", "pe_image", seq_num=1)["pe_exposure_time"] == 100.0
    assert metadata.of("e", "pe_image", seq_num=1)["mono_energy"] == 42.7


def test_frame_is_sent_without_unreadable_metadata() -> None:
    finder = FrameFinder()
    frames: list[Any] = []

    def spoil(name: str, document: Any) -> None:
        spoilt = {**document, "configuration": 5} if name == "descriptor" else document
        with contextlib.suppress(MalformedDocumentError):
            frames.extend(finder.feed(name, spoilt))

    run = ComposedRun(spoil)
    run.stream(pe={"image": IMAGE})
    run.event(pe_image=run.resource()(0))
    assert [(frame.path, frame.metadata["seq_num"]) for frame in frames] == [("/data/raw/sample/sample-00000.tif", 1)]
