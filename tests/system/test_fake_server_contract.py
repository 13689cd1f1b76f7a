"""What the rest of the package relies on in a connection: the real one and its stand-in keep it alike."""

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tango

from petif_bluesky.server_poller import Poller, ServerPoller
from petif_bluesky.testing import FakeServer, converted_beside, failed
from tango_server.client.client import Client, LinkDownError, RequestRejectedError, UnknownRunError
from tango_server.client.local_server import LocalServer
from tango_server.messages import FolderAnswer, FrameReport, FrameRequest, RunStatistics
from tango_server.recipe import Recipe
from tests.system.waiting import until


class Side(ABC):
    """A poller, and what may be done to its server."""

    poller: Poller

    @property
    def client(self) -> Client:
        return self.poller.client

    @abstractmethod
    def frame(self, name: str) -> str:
        """Put a frame into the folder `raw` of the server, and return its path."""

    @abstractmethod
    def broken(self, name: str) -> str:
        """Put a file that is no frame there, and return its path."""

    @abstractmethod
    def outside(self) -> str:
        """Return a path that the server refuses."""

    @abstractmethod
    def absent(self) -> str:
        """Return the path of a file that is not there."""

    @abstractmethod
    def pause(self) -> None:
        """Let frames wait."""

    @abstractmethod
    def resume(self) -> None:
        """Let frames be converted again."""

    @abstractmethod
    def stop(self) -> None:
        """End the server."""


class Fake(Side):
    def __init__(self) -> None:
        self.poller = self.fake = FakeServer("/data")
        self.fake.report = self._report
        self._broken: set[str] = set()

    def _report(self, request: FrameRequest) -> FrameReport:
        if request.source in self._broken:
            return failed(request, f"{request.source}: found no TIFF")
        return converted_beside(request)

    def frame(self, name: str) -> str:
        listed = [path for part in self.fake.folders.get("/data/raw", []) for path in part.frames]
        path = f"/data/raw/{name}"
        self.fake.folders["/data/raw"] = [FolderAnswer(frames=sorted([*listed, path]), more=False)]
        return path

    def broken(self, name: str) -> str:
        path = self.frame(name)
        self._broken.add(path)
        return path

    def outside(self) -> str:
        return "/etc/a.tif"

    def absent(self) -> str:
        self.fake.absent.add("/data/raw/none.tif")
        return "/data/raw/none.tif"

    def pause(self) -> None:
        self.fake.converts = False

    def resume(self) -> None:
        self.fake.converts = True

    def stop(self) -> None:
        self.fake.go_down()


class Real(Side):
    def __init__(self, server: LocalServer, root: Path, put: Callable[..., Path]) -> None:
        self.poller = self.real = ServerPoller(Client(server.address))
        self.real.wait_for_first_poll(10)
        self._server, self._root, self._put = server, root, put

    def frame(self, name: str) -> str:
        (self._root / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        return str(self._put("qxrd_f32_64.tif", name))

    def broken(self, name: str) -> str:
        return str(self._put("not_a_tiff.tif", name))

    def outside(self) -> str:
        return "/etc/a.tif"

    def absent(self) -> str:
        return str(self._root / "raw" / "none.tif")

    def pause(self) -> None:
        tango.DeviceProxy(self.client.address).Pause()

    def resume(self) -> None:
        tango.DeviceProxy(self.client.address).Resume()

    def stop(self) -> None:
        self._server.stop()


@pytest.fixture(params=["stand-in", "real"])
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    if request.param == "stand-in":
        yield Fake()
        return
    root, put, server = (request.getfixturevalue(name) for name in ("root", "put", "server"))
    real = Real(server, root, put)
    yield real
    real.real.close()


def asked(source: str, number: int = 1, **changes: Any) -> dict[str, Any]:
    fields = {"source": source, "key": f"run/{source}", "run_uid": "run", "stream": "primary", "seq_num": number}
    return {**fields, **changes}


def test_frames_of_a_run_get_their_reports_in_order(side: Side) -> None:
    sources = [side.frame(f"a-{number}.tif") for number in (1, 2, 3)]
    answer = side.client.submit([asked(source, number) for number, source in enumerate(sources, start=1)], ["run"])
    assert [job.source for job in answer.jobs] == sources
    assert answer.refused == []
    until(lambda: side.client.run_statistics("run").converted == 3, "all are converted")
    reports = side.client.reports_of_run("run")
    assert [(report.source, report.seq_num) for report in reports] == [
        (source, number) for number, source in enumerate(sources, start=1)
    ]
    assert [report.job_id for report in reports] == [job.job_id for job in answer.jobs]
    finished = list(side.client.reports_of_run("run", ""))
    assert sorted(finished, key=reports.index) == reports
    assert list(side.client.reports_of_run("run", finished[0].job_id)) == finished[1:]
    for report in reports:
        assert (report.outcome, report.run_uid, report.stream) == ("converted", "run", "primary")
        assert report.output == report.source.replace("/raw/", "/processed/")


def test_the_same_key_is_the_same_job(side: Side) -> None:
    request = asked(side.frame("a-1.tif"))
    first, second = side.client.submit([request]), side.client.submit([request])
    assert first.jobs == second.jobs
    until(lambda: side.client.run_statistics("run").converted == 1, "it is converted")
    assert side.client.run_statistics("run").submitted == 1


def test_a_run_is_known_once_it_was_announced_or_has_a_frame(side: Side) -> None:
    for ask in (side.client.run_statistics, side.client.reports_of_run):
        with pytest.raises(UnknownRunError):
            ask("nobody")
    side.client.submit([], ["empty"])
    assert side.client.run_statistics("empty") == RunStatistics(run_uid="empty")
    assert list(side.client.reports_of_run("empty")) == []
    side.client.submit([asked(side.frame("a-1.tif"), run_uid="other", key="other")])
    assert side.client.run_statistics("other").submitted == 1


def test_counts_of_a_run_are_kept_with_its_statistics(side: Side) -> None:
    side.client.submit([], run_counts={"run": {"primary": (3, 2)}})
    assert side.client.run_statistics("run") == RunStatistics(run_uid="run", run_counts={"primary": (3, 2)})
    side.client.submit([asked(side.frame("a-1.tif"))], ["run"], {"run": {"primary": (2, 3), "dark": (1, 1)}})
    statistics = side.client.run_statistics("run")
    assert (statistics.submitted, statistics.run_counts) == (1, {"primary": (3, 3), "dark": (1, 1)})


def test_new_reports_of_all_runs_are_followed(side: Side) -> None:
    nothing = side.client.reports_after()
    assert nothing.reports == side.client.reports_after(nothing.position).reports == []
    side.client.submit([asked(side.frame("a-1.tif"))])
    until(lambda: side.client.run_statistics("run").converted == 1, "the first is converted")
    first = side.client.reports_after(nothing.position)
    side.client.submit([asked(side.broken("a-2.tif"), run_uid="other"), asked(side.outside(), run_uid="third")])
    until(lambda: side.client.run_statistics("other").failed == 1, "the second fails")
    second = side.client.reports_after(first.position)
    assert [report.run_uid for report in first.reports] == ["run"]
    assert sorted(str(report.run_uid) for report in second.reports) == ["other", "third"]
    assert side.client.reports_after(second.position) == side.client.reports_after()
    assert side.client.reports_after("").reports == [*first.reports, *second.reports]


def test_invalid_request_is_refused_alone(side: Side) -> None:
    good, outside = side.frame("a-1.tif"), side.outside()
    wrong = [asked(outside, 2), asked(good, 3, key="wrong", recipe={"rotation": 45})]
    answer = side.client.submit([asked(good), *wrong], ["run"])
    assert [job.source for job in answer.jobs] == [good]
    assert [refused.source for refused in answer.refused] == [outside, good]
    assert "outside the folders that may be read" in answer.refused[0].reason
    assert "recipe.rotation: " in answer.refused[1].reason
    assert "got 45" in answer.refused[1].reason


def test_refused_frames_count_as_failed_in_their_run(side: Side) -> None:
    good, outside = side.frame("a-1.tif"), side.outside()
    for _ in range(2):
        side.client.submit([asked(outside, 1), asked(good, 2)], ["run"])
    side.client.submit([asked(outside, run_uid=None, key=None)])
    until(lambda: side.client.run_statistics("run").converted == 1, "the good one is converted")
    statistics = side.client.run_statistics("run")
    assert (statistics.submitted, statistics.failed, statistics.pending) == (2, 1, 0)
    reports = side.client.reports_of_run("run")
    assert [(report.seq_num, report.outcome) for report in reports] == [(1, "failed"), (2, "converted")]
    assert outside in reports[0].reason


def test_refused_request_can_be_corrected(side: Side) -> None:
    good = side.frame("a-1.tif")
    assert side.client.submit([asked(good, recipe={"rotation": 45})]).refused
    assert side.client.submit([asked(good)]).jobs
    until(lambda: side.client.run_statistics("run").converted == 1, "it is converted")
    assert side.client.run_statistics("run").submitted == 1


def test_the_key_of_another_frame_is_refused(side: Side) -> None:
    first, second = side.frame("a-1.tif"), side.frame("a-2.tif")
    answer = side.client.submit([asked(first), asked(second, key=f"run/{first}")])
    assert [job.source for job in answer.jobs] == [first]
    assert [refused.source for refused in answer.refused] == [second]
    assert first in answer.refused[0].reason
    assert side.client.run_statistics("run").submitted == 1


def test_bad_frame_is_reported_as_failed(side: Side) -> None:
    side.client.submit([asked(side.broken("a-1.tif"), 1), asked(side.frame("a-2.tif"), 2)])
    until(lambda: side.client.run_statistics("run").pending == 0, "both have their report")
    statistics = side.client.run_statistics("run")
    assert (statistics.submitted, statistics.converted, statistics.failed) == (2, 1, 1)
    assert statistics.conversion_time_mean == pytest.approx(statistics.conversion_time_total)
    first, second = side.client.reports_of_run("run")
    assert (first.outcome, first.output, first.shape, first.pixel_type) == ("failed", None, None, None)
    assert first.reason
    assert (second.outcome, second.reason) == ("converted", "")


def test_reports_match_the_recipe(side: Side) -> None:
    recipe = Recipe.preset("xdi-unsigned", rotation=90, output={"template": "{sample}_{seq_num:03d}"})
    metadata = {"sample": "CeO2", "shape": [1, 64, 64]}
    plain, named = side.frame("cell/raw/a.tif"), side.frame("b.tif")
    fields = {"recipe": recipe.model_dump(mode="json"), "metadata": metadata}
    side.client.submit([asked(plain, 1, metadata=metadata), asked(named, 2, **fields)])
    until(lambda: side.client.run_statistics("run").converted == 2, "both are converted")
    first, second = side.client.reports_of_run("run")
    assert first.output == plain.replace("/raw/", "/processed/", 1)
    assert second.output == named.replace("/raw/b.tif", "/processed/CeO2_002.tif")
    assert [(report.shape, report.pixel_type) for report in (first, second)] == [
        ((64, 64), "int32"),
        ((64, 64), "uint32"),
    ]
    assert (first.recipe_hash, second.recipe_hash) == (Recipe.preset("xdi").hash, recipe.hash)
    for report in (first, second):
        assert report.accepted is not None
        assert report.accepted <= report.finished


def test_paused_server_keeps_frames_pending(side: Side) -> None:
    side.client.submit([asked(side.frame("a-1.tif"), 1)])
    until(lambda: side.client.run_statistics("run").converted == 1, "the first is converted")
    side.pause()
    side.client.submit([asked(side.frame("a-2.tif"), 2)])
    statistics = side.client.run_statistics("run")
    assert (statistics.submitted, statistics.converted, statistics.pending) == (2, 1, 1)
    assert [report.seq_num for report in side.client.reports_of_run("run")] == [1]
    side.resume()
    until(lambda: side.client.run_statistics("run").converted == 2, "the second is converted")


def test_listener_gets_the_statistics_of_its_run(side: Side) -> None:
    looks: queue.Queue[RunStatistics | None] = queue.Queue()

    def await_look(wanted: Callable[[RunStatistics | None], bool]) -> None:
        while not wanted(looks.get(timeout=30)):
            pass

    unfollow = side.poller.follow("run", looks.put)
    await_look(lambda look: look == RunStatistics(run_uid="run"))
    side.pause()
    side.client.submit([asked(side.frame("a-1.tif"))], ["run"])
    await_look(lambda look: look is not None and (look.submitted, look.pending) == (1, 1))
    side.resume()
    await_look(lambda look: look is not None and look.converted == 1)
    ended: queue.Queue[RunStatistics | None] = queue.Queue()
    side.poller.follow("run", ended.put)
    unfollow()
    side.stop()
    while ended.get(timeout=30) is not None:
        pass
    assert None not in looks.queue


def test_state_of_the_server_is_known_at_first(side: Side) -> None:
    server = side.poller.state
    assert (server.was_polled, server.connected, server.down, server.error) == (True, True, False, "")
    assert server.version
    assert server.recipe == Recipe.preset("xdi").model_dump(mode="json")


def test_invalid_call_is_rejected(side: Side) -> None:
    with pytest.raises(RequestRejectedError):
        side.client.submit([], [""])
    with pytest.raises(RequestRejectedError):
        side.client.submit([], [], {"run": {"primary": (-1, 0)}})
    with pytest.raises(RequestRejectedError):
        side.client.frames_in("/nowhere")


def test_folders_and_missing_files_are_reported(side: Side) -> None:
    frames = [side.frame(name) for name in ("b.tif", "a.tif")]
    folder = frames[0].rpartition("/")[0]
    assert side.client.frames_in(folder) == FolderAnswer(frames=sorted(frames), more=False)
    absent = side.absent()
    assert [lost.source for lost in side.client.missing([*frames, absent])] == [absent]


def test_stopped_server_is_down(side: Side) -> None:
    seen = threading.Event()
    side.poller.watch(lambda server: seen.set() if server.down else None)
    assert side.poller.state.connected
    side.stop()
    assert seen.wait(30), "those who watch are told"
    assert side.poller.state.down
    assert side.poller.state.error
    for call in (lambda: side.client.submit([], ["run"]), lambda: side.client.run_statistics("run")):
        with pytest.raises(LinkDownError):
            call()
