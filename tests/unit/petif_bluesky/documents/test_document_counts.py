"""How many events and stream datum indices of a run were seen, by stream."""

from petif_bluesky.documents.document_counts import DocumentCounts

SPAN = {"indices": {"start": 0, "stop": 3}}


def described(counts: DocumentCounts, run: str, *streams: str) -> None:
    counts("start", {"uid": run})
    for stream in streams:
        counts("descriptor", {"uid": f"{run}/{stream}", "run_start": run, "name": stream})


def test_events_pages_and_stream_datums_are_counted_by_stream() -> None:
    counts = DocumentCounts()
    described(counts, "run", "primary", "fly")
    counts("event", {"descriptor": "run/primary", "seq_num": 1})
    counts("event_page", {"descriptor": "run/primary", "seq_num": [2, 3]})
    counts("stream_datum", {"descriptor": "run/fly", **SPAN})
    assert counts.of("run") == {"primary": 3, "fly": 3}


def test_point_taken_again_counts_twice() -> None:
    counts = DocumentCounts()
    described(counts, "run", "primary")
    for seq_num in (1, 2, 2):
        counts("event", {"descriptor": "run/primary", "seq_num": seq_num})
    assert counts.of("run") == {"primary": 3}


def test_ended_and_unknown_runs_are_empty() -> None:
    counts = DocumentCounts()
    described(counts, "run", "primary")
    counts("event", {"descriptor": "run/primary", "seq_num": 1})
    counts("event", {"descriptor": "nobody's", "seq_num": 1})
    counts.forget("run")
    counts("event", {"descriptor": "run/primary", "seq_num": 2})
    assert counts.of("run") == counts.of("another") == {}


def test_runs_that_never_stop_are_forgotten_in_the_end() -> None:
    counts = DocumentCounts()
    for number in range(150):
        described(counts, str(number), "primary")
        counts("event", {"descriptor": f"{number}/primary", "seq_num": 1})
    assert counts.of("0") == {}
    assert counts.of("149") == {"primary": 1}
