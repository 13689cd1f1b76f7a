"""What the monitor shows of a server: without a server, a thread or a browser."""

import socket
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from petif_bluesky.sim.qxrd_file import write_frame
from petif_bluesky.sim.qxrd_sidecar import Sidecar, write_sidecar
from tango_server.client.attributes import AttributeReading
from tango_server.client.client import ServerSnapshot
from tango_server.conversion import convert_file
from tango_server.conversion.image.display import colour_limits
from tango_server.messages import CorrectionsInUse, FrameReport, Master, RunStatistics
from tango_server.monitor.allowed_origins import is_loopback, names_of, shown_name
from tango_server.monitor.html import corrections, failures, headline, numbers, runs
from tango_server.monitor.images import Window, linked, read_pair, shrunk
from tango_server.monitor.state import (
    HISTORY,
    SHOWN_RUNS,
    MonitorState,
    Queries,
    queries_after,
    runs_to_query,
    with_reports,
    with_runs,
    with_snapshot,
    without_answer,
)
from tango_server.recipe import Recipe

ADDRESS = "tango://127.0.0.1:45450/petif/converter/1#dbase=no"
NOTHING = MonitorState(ADDRESS, began=1000.0)


def snapshot(problem: str = "", **values: Any) -> ServerSnapshot:
    """Return a look at a server that shows these attributes."""
    return ServerSnapshot("1.2", {name: AttributeReading(value, 0.0) for name, value in values.items()}, problem)


def report(number: int, outcome: str = "converted", run_uid: str | None = None, **fields: Any) -> FrameReport:
    given = {"job_id": str(number), "source": f"/raw/{number}.tif", "outcome": outcome, "finished": float(number)}
    return FrameReport.model_validate({**given, "run_uid": run_uid, **fields})


def test_idle_server_is_queried_only_for_attributes() -> None:
    first = snapshot(State="ON", NumProcessed=5, QueueLength=0, NumFailed=1, FailedFiles=["/a"], LastError="a")
    assert queries_after(NOTHING, first) == Queries(latest=True, failures=True)
    known = with_snapshot(NOTHING, first, 1001.0)
    assert queries_after(known, first) == Queries(latest=False, failures=False)
    assert queries_after(without_answer(known, "gone", 1002.0), first) == Queries(latest=True, failures=True)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"NumProcessed": 6}, Queries(latest=True, failures=False)),
        ({"QueueLength": 3}, Queries(latest=True, failures=False)),
        ({"NumProcessed": 6, "NumFailed": 1}, Queries(latest=True, failures=True)),
        ({"FailedFiles": []}, Queries(latest=False, failures=True)),
    ],
)
def test_reports_are_queried_when_a_counter_has_changed(changes: dict[str, Any], expected: Queries) -> None:
    values = {"NumProcessed": 5, "QueueLength": 0, "NumFailed": 0, "FailedFiles": ["/a"], "LastError": ""}
    known = with_snapshot(NOTHING, snapshot(**values), 1001.0)
    assert queries_after(known, snapshot(**{**values, **changes})) == expected


def test_server_that_cannot_convert_is_not_queried_further() -> None:
    assert queries_after(NOTHING, snapshot("the disk is gone", State="FAULT")) == Queries(latest=False, failures=False)


def test_the_history_has_a_gap_where_there_was_no_answer_and_an_end() -> None:
    observed = with_snapshot(NOTHING, snapshot(FramesPerSecond=2.0, LatencyMedian=0.0, QueueLength=3), 1001.0)
    observed = without_answer(observed, "gone", 1002.0)
    shown, gap = observed.samples
    assert (shown.frames_per_second, shown.backlog) == (2.0, 3.0)
    assert np.isnan(shown.latency_median)  # the server says 0 before its first frame
    assert np.isnan([gap.frames_per_second, gap.latency_median, gap.latency_p95, gap.backlog]).all()
    for second in range(HISTORY):
        observed = without_answer(observed, "gone", 1003.0 + second)
    assert len(observed.samples) == HISTORY
    assert observed.samples[0].time == 1003.0


def test_silence_counts_from_the_last_answer_or_from_the_start() -> None:
    silent = without_answer(NOTHING, "refused", 1005.0)
    assert (silent.is_answering, silent.silent_since) == (False, 1000.0)
    answered = with_snapshot(silent, snapshot(State="ON"), 1006.0)
    assert answered.is_answering
    silent = without_answer(without_answer(answered, "refused", 1007.0), "refused", 1008.0)
    assert (silent.is_answering, silent.silent_since) == (False, 1006.0)


def test_the_last_converted_frame_is_kept_while_others_fail() -> None:
    observed = with_reports(NOTHING, [report(1), report(2), report(3, "failed")])
    assert observed.last == report(2)
    assert with_reports(observed, [report(4, "failed")]).last == report(2)


def test_runs_are_queried_while_they_change() -> None:
    known = with_runs(NOTHING, [RunStatistics(run_uid="old", pending=2), RunStatistics(run_uid="done")])
    assert runs_to_query(known, [report(1, run_uid="a"), report(2, run_uid="b"), report(3)]) == ("b", "a", "old")


def test_new_runs_come_first_and_known_ones_keep_their_place() -> None:
    known = with_runs(NOTHING, [RunStatistics(run_uid="b"), RunStatistics(run_uid="a")])
    known = with_runs(known, [RunStatistics(run_uid="c"), RunStatistics(run_uid="a", converted=1)])
    assert [(run.run_uid, run.converted) for run in known.runs] == [("c", 0), ("b", 0), ("a", 1)]
    many = with_runs(known, [RunStatistics(run_uid=str(number)) for number in range(SHOWN_RUNS)])
    assert [run.run_uid for run in many.runs] == [str(number) for number in range(SHOWN_RUNS)]


def test_headline_shows_the_state_or_the_remedy_without_an_answer() -> None:
    assert "Connecting to" in headline(NOTHING)
    answering = with_snapshot(NOTHING, snapshot(State="ALARM", Status="1 failed: <img src=x>"), 1001.0)
    assert ">ALARM<" in headline(answering)
    assert "1 failed: &lt;img src=x&gt;" in headline(answering)
    assert "the disk is gone" in headline(with_snapshot(NOTHING, snapshot("the disk is gone", State="FAULT"), 1001.0))
    silent = headline(without_answer(answering, "refused", 1002.0))
    assert datetime.fromtimestamp(1001.0).strftime("No answer since %Y-%m-%d %H:%M:%S") in silent
    assert ADDRESS in silent
    assert "petif serve" in silent


def test_numbers_that_are_not_known_are_no_zeros() -> None:
    some = snapshot(QueueLength=3, FreeSpace=5_000_000_000, LatencyMedian=0.02)
    shown = numbers(with_snapshot(NOTHING, some, 1001.0))
    for text in ("data-number='Backlog'>3<", "data-number='Free space'>5 GB<", "data-number='Median latency'>20 ms<"):
        assert text in shown
    assert "data-number='Converted'>–<" in shown
    assert "class='tiles old'" in numbers(without_answer(NOTHING, "gone", 1001.0))


def test_text_from_the_server_is_escaped() -> None:
    shown = failures([report(1, "failed", reason="<script>1</script>", source="/raw/<b>.tif")])
    assert "<script>" not in shown
    assert "/raw/&lt;b&gt;.tif" in shown
    assert "&lt;i&gt;" in runs([RunStatistics(run_uid="<i>")])


def test_names_of_runs_stay_distinct() -> None:
    named = [RunStatistics(run_uid=uid) for uid in ("alumina-1", "alumina-2", "a" * 40 + "-1", "a" * 40 + "-2")]
    shown = runs(named)
    for name in ("alumina-1", "alumina-2", "a" * 19 + "…" + "a" * 18 + "-1", "a" * 19 + "…" + "a" * 18 + "-2"):
        assert f">{name}<" in shown
    uid = "5f1c9e1e-0000-4000-8000-000000000001"
    assert f">{uid}<" in runs([RunStatistics(run_uid=uid)])
    assert ">alumina-2<" in failures([report(1, "failed", run_uid="alumina-2")])


def test_latency_of_an_idle_server_is_a_dash() -> None:
    shown = numbers(with_snapshot(NOTHING, snapshot(LatencyMedian=0.0, LatencyP95=0.0), 1001.0))
    assert "data-number='Median latency'>–<" in shown
    assert "data-number='95 % latency'>–<" in shown
    assert "– / –" in runs([RunStatistics(run_uid="r")])


@pytest.mark.parametrize("recipe", ["{", '{"from_the_future": 1}'])
def test_a_recipe_of_another_version_is_shown_as_it_is(recipe: str) -> None:
    assert recipe.replace('"', "&quot;") in numbers(with_snapshot(NOTHING, snapshot(Recipe=recipe), 1001.0))


def test_images_are_averaged_without_what_is_not_finite() -> None:
    image = np.random.default_rng(1).normal(100, 10, (1030, 770)).astype(np.float32)
    image[0, 0], image[4, 5] = np.nan, np.inf
    image[1027:1030, 0:3] = np.nan
    small = shrunk(image)
    assert small.shape == (344, 257)  # blocks of 3, the last ones cut
    held = np.where(np.isfinite(image), image, np.nan)
    assert small[0, 0] == pytest.approx(np.nanmean(held[0:3, 0:3]), rel=1e-5)
    assert small[1, 1] == pytest.approx(np.nanmean(held[3:6, 3:6]), rel=1e-5)
    assert small[343, 256] == pytest.approx(held[1029:, 768:].mean(), rel=1e-5)
    assert np.isnan(small[-1, 0])
    assert np.isnan(shrunk(np.full((600, 600), np.nan, np.float32))).all()


def test_colour_limits_ignore_hot_and_non_positive_pixels() -> None:
    image = np.random.default_rng(1).normal(0, 1, (100, 100)).astype(np.float32)
    image[:, 50:] += 1000
    image[3, 3] = 1e9
    low, high = colour_limits(image)
    assert 0 < low < 1
    assert 1000 < high < 1100
    for image in (np.zeros((3, 3), np.float32), np.full((3, 3), np.nan, np.float32), np.full((3, 3), -5, np.float32)):
        low, high = colour_limits(image)
        assert 0 < low < high


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("flip", ["none", "0", "1", "both"])
def test_a_window_shows_the_same_part_of_the_turned_image(rotation: int, flip: Any) -> None:
    from tango_server.conversion.image.orientation import Orientation

    recipe = Recipe(rotation=rotation, flip=flip)  # type: ignore[arg-type]
    image = np.arange(40 * 30).reshape(40, 30)
    turned = np.rot90(image, rotation // 90)
    turned = {"none": turned, "0": np.flip(turned, 0), "1": np.flip(turned, 1), "both": np.flip(turned)}[flip]
    x, y = (4.5, 14.5), (32.5, 12.5)  # left and right; lower and upper, since row 0 is on top
    there = linked(x, y, Orientation.of(recipe), image.shape)
    part = Window.around(*there, turned.shape).of(turned)
    assert set(part.flat) == set(image[13:33, 5:15].flat)
    assert linked(*there, Orientation.of(recipe).inverse(), turned.shape) == (x, y)


def test_windows_beyond_the_image_are_cut_and_never_empty() -> None:
    assert Window.around((-50.0, 500.0), (99.5, -0.5), (100, 80)) == Window(0, 80, 0, 100)
    beyond = Window.around((900.0, 950.0), (-20.0, -10.0), (100, 80))
    assert beyond.of(np.zeros((100, 80))).shape == (1, 1)


@pytest.fixture
def converted(tmp_path: Path) -> FrameReport:
    """A converted frame of 30 x 40 pixels with a beam centre."""
    (tmp_path / "raw").mkdir()
    source = tmp_path / "raw" / "a-00001.tif"
    now = datetime(2026, 1, 2, 3, 4, 5)
    write_frame(source, np.ones((30, 40), np.float32), document_name="a", acquired=now)
    sidecar = Sidecar(
        shape=(30, 40), pixel_type="float32", exposure_time=1, acquired=now, center=(5.0, 7.0), distance=1, energy=1
    )
    write_sidecar(source, sidecar)
    return convert_file(source, Recipe.preset("xdi", rotation=90))


def test_a_pair_knows_its_recipe_and_where_the_beam_is_in_both(converted: FrameReport) -> None:
    pair = read_pair(converted)
    assert (pair.raw.shape, pair.converted.shape) == ((30, 40), (40, 30))
    assert pair.raw.center == (5.0, 7.0)
    assert pair.converted.center == (7.0, 34.0)  # x' = y, y' = W - 1 - x
    assert pair.recipe is not None
    assert pair.recipe.rotation == 90


def test_esperanto_frame_is_shown_with_its_header_beam_centre(tmp_path: Path) -> None:
    source = tmp_path / "raw" / "a-00001.tif"
    source.parent.mkdir()
    image = np.arange(300 * 256, dtype=np.float32).reshape(300, 256)  # becomes square: it is padded
    write_frame(source, image, document_name="a", acquired=datetime(2026, 1, 2, 3, 4, 5))
    given = {"wavelength": 0.29, "distance": 400, "pixel_size": 0.2, "beam_center": (100.0, 50.0), "exposure": 1}
    report = convert_file(source, Recipe.preset("esperanto", esperanto={"omega": 0, **given}))
    pair = read_pair(report)
    assert pair.converted.shape == (300, 300)
    assert pair.converted.center is not None
    x, y = (round(each) for each in pair.converted.center)
    assert pair.converted.image is not None
    assert pair.converted.image[y, x] == image[50, 100]
    assert pair.orientation is None  # a padded image is not linked: it has pixels that the raw one has not


def test_file_not_visible_here_is_explained(converted: FrameReport) -> None:
    Path(converted.source).unlink()
    pair = read_pair(converted)
    assert pair.raw.image is None
    assert f"{converted.source}: no such file" in pair.raw.text
    assert pair.converted.image is not None
    assert pair.orientation is None
    Path(converted.output or "").write_bytes(b"not a frame")
    assert "not a frame" not in (text := read_pair(converted).converted.text)
    assert f"cannot read the file: {converted.output}" in text


def test_a_frame_converted_in_place_has_no_before(converted: FrameReport) -> None:
    pair = read_pair(converted.model_copy(update={"source": converted.output}))
    assert "Converted in place" in pair.raw.html
    assert pair.converted.shape == (40, 30)


def test_a_page_may_be_opened_by_the_names_of_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getfqdn", lambda: "host.example")  # a name service may take its time
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.0.1.1", "localhost", "LOCALHOST"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "10.1.2.3", "127.evil.example"))
    for host in ("127.0.0.1", "localhost", "0.0.0.0", "10.1.2.3"):
        assert shown_name(host) in names_of(host)
    assert set(names_of("localhost")) == {"localhost", "127.0.0.1"}
    assert {"127.0.0.1", "localhost"} < set(names_of("0.0.0.0"))
    assert "*" not in names_of("0.0.0.0")
    assert names_of("10.1.2.3")[0] == "10.1.2.3"
    assert "127.0.0.1" not in names_of("10.1.2.3")


def test_corrections_in_use_are_shown_with_a_warning_for_an_old_dark() -> None:
    dark = Master(kind="dark", path="/raw/<dark>.tif", sha256="d", modified=1000.0)
    found = CorrectionsInUse(
        detector="pe1", finished=8200.0, masters=(dark,), darks=1, dark_max_age=60.0, masked=11, overexposed=12
    )
    values = {"NumOverexposedFrames": 13, "CorrectionsInUse": f"[{found.model_dump_json()}]"}
    observed = with_snapshot(NOTHING, snapshot(**values), 9000.0)
    shown = corrections(observed)
    assert all(text in shown for text in ("pe1", "&lt;dark&gt;.tif", "2.0 h old", ">11<", ">12<"))
    assert "pe1: the dark is 2.0 h old, dark_max_age is 60 s" in shown
    assert "data-number='Overexposed'>13<" in numbers(observed)
    assert "No corrections" in corrections(NOTHING)
