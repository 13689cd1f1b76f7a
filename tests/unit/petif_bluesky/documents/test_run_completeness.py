"""What a stop document says against what was seen: every loss is told, and nothing else."""

from typing import Any

import bluesky.plans as bp
import pytest
from bluesky import RunEngine
from ophyd.sim import det, motor

from petif_bluesky.documents.run_completeness import CompletenessCheck
from tests.unit.documents import IMAGE, Document, Recorder, replay


def told(documents: list[tuple[str, Document]]) -> list[str]:
    return [words for answers in replay(documents, CompletenessCheck().feed) for words in answers]


@pytest.fixture
def scanned(run_engine: RunEngine, recorder: Recorder) -> list[tuple[str, Document]]:
    run_engine(bp.scan([det], motor, -1, 1, 10))
    return recorder.documents


def test_complete_run_is_not_reported(scanned: list[tuple[str, Document]]) -> None:
    assert told(scanned) == []
    assert told(scanned + scanned) == []


def test_missing_events_are_listed(scanned: list[tuple[str, Document]]) -> None:
    kept = [(name, document) for name, document in scanned if document.get("seq_num") not in {3, 7}]
    (words,) = told(kept)
    assert scanned[0][1]["uid"] in words
    assert "2 of 10 events of stream 'primary'" in words
    assert "seq_num 3, 7." in words


@pytest.mark.parametrize("kind", ["start", "descriptor"])
def test_missing_start_or_descriptor_is_reported(kind: str, scanned: list[tuple[str, Document]]) -> None:
    words = told([(name, document) for name, document in scanned if name != kind])
    assert len(words) == 1
    assert ("start document" if kind == "start" else "10 of 10 events") in words[0]


def test_run_with_only_a_stop_document_is_reported(scanned: list[tuple[str, Document]]) -> None:
    assert len(told(scanned[-1:])) == 2


def fly_scan(*spans: tuple[int, int]) -> list[tuple[str, Document]]:
    keys = {"pe_image": {**IMAGE, "external": "STREAM:", "object_name": "pe"}}
    documents: list[tuple[str, Any]] = [
        ("start", {"uid": "run"}),
        ("descriptor", {"uid": "d", "run_start": "run", "name": "fly", "data_keys": keys}),
        ("stream_resource", {"uid": "r", "run_start": "run", "data_key": "pe_image"}),
    ]
    for start, stop in spans:
        datum = {"stream_resource": "r", "descriptor": "d", "seq_nums": {"start": start, "stop": stop}}
        documents.append(("stream_datum", datum))
    return [*documents, ("stop", {"run_start": "run", "num_events": {"fly": 10}})]


def test_absurd_numbers_take_neither_time_nor_memory() -> None:
    *documents, _ = fly_scan((1, 3), (3, 2**62))
    (words,) = told([*documents, ("stop", {"run_start": "run", "num_events": {"fly": 2**62}})])
    assert f"{2**62 - 2} of {2**62} frames of 'pe_image'" in words
    assert "seq_num 3, 4, 5," in words


def test_fly_scan_is_checked_by_its_stream_datums() -> None:
    assert told(fly_scan((1, 4), (4, 11))) == []
    (words,) = told(fly_scan((1, 4), (6, 11)))
    assert "2 of 10 frames of 'pe_image' of stream 'fly'" in words
    assert "seq_num 4, 5." in words
    without_resource = [pair for pair in fly_scan((1, 11)) if pair[0] != "stream_resource"]
    assert "10 of 10" in told(without_resource)[0]


def test_streams_of_the_conversion_itself_are_not_checked() -> None:
    assert told([("start", {"uid": "run"}), ("stop", {"run_start": "run", "num_events": {"conversion": 1}})]) == []


def test_unfinished_runs_do_not_accumulate() -> None:
    check = CompletenessCheck()
    for number in range(300):
        (start, descriptor, _, stop) = [(kind, {**document, "uid": f"{number}"}) for kind, document in fly_scan()]
        for kind, document in (start, descriptor, stop)[: 2 + number % 2]:
            check.feed(kind, {**document, "run_start": f"{number}"})
    assert 0 < len(check._runs) <= 100
