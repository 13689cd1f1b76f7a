"""What the rest of the package relies on in a connection: the real one and its stand-in keep it alike."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from petif_bluesky.link import Link, LinkDownError, RequestRejectedError, TangoLink, UnknownRunError
from petif_bluesky.testing import FakeLink
from petif_bluesky.testing.fake_link import UP
from tango_server.local import LocalServer
from tango_server.messages import FolderAnswer, RunStatistics
from tests.system.waiting import until


class Side(ABC):
    """A connection, and what may be done to its server."""

    link: Link

    @abstractmethod
    def frame(self, name: str) -> str:
        """Put a frame into the folder `raw` of the server, and return its path."""

    @abstractmethod
    def outside(self) -> str:
        """Return a path that the server refuses."""

    @abstractmethod
    def absent(self) -> str:
        """Return the path of a file that is not there."""

    @abstractmethod
    def stop(self) -> None:
        """End the server."""


class Fake(Side):
    def __init__(self) -> None:
        self.link = self.fake = FakeLink()
        self.fake.prompt = False
        self.fake.look(UP)

    def frame(self, name: str) -> str:
        listed = [path for part in self.fake.folders.get("/data/raw", []) for path in part.frames]
        path = f"/data/raw/{name}"
        self.fake.folders["/data/raw"] = [FolderAnswer(frames=sorted([*listed, path]), more=False)]
        return path

    def outside(self) -> str:
        self.fake.refused.add("/etc/a.tif")
        return "/etc/a.tif"

    def absent(self) -> str:
        self.fake.absent.add("/data/raw/none.tif")
        return "/data/raw/none.tif"

    def stop(self) -> None:
        self.fake.go_down()


class Real(Side):
    def __init__(self, server: LocalServer, root: Path, put: Callable[..., Path]) -> None:
        self.link = self.tango = TangoLink(server.address)
        self.tango.wait_for_first_look(10)
        self._server, self._root, self._put = server, root, put

    def frame(self, name: str) -> str:
        return str(self._put("qxrd_f32_64.tif", name))

    def outside(self) -> str:
        return "/etc/a.tif"

    def absent(self) -> str:
        return str(self._root / "raw" / "none.tif")

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
    real.tango.close()


def asked(source: str, number: int = 1, **changes: Any) -> dict[str, Any]:
    fields = {"source": source, "key": f"run/{source}", "run_uid": "run", "stream": "primary", "seq_num": number}
    return {**fields, **changes}


def test_frames_of_a_run_get_their_reports_in_order(side: Side) -> None:
    sources = [side.frame(f"a-{number}.tif") for number in (1, 2, 3)]
    answer = side.link.submit([asked(source, number) for number, source in enumerate(sources, start=1)], ["run"])
    assert [job.source for job in answer.jobs] == sources
    assert answer.refused == []
    until(lambda: side.link.run_statistics("run").converted == 3, "all are converted")
    reports = side.link.reports("run")
    assert [(report.source, report.seq_num) for report in reports] == [
        (source, number) for number, source in enumerate(sources, start=1)
    ]
    assert [report.job_id for report in reports] == [job.job_id for job in answer.jobs]
    for report in reports:
        assert (report.outcome, report.run_uid, report.stream) == ("converted", "run", "primary")
        assert report.output == report.source.replace("/raw/", "/processed/")


def test_the_same_key_is_the_same_job(side: Side) -> None:
    request = asked(side.frame("a-1.tif"))
    first, second = side.link.submit([request]), side.link.submit([request])
    assert first.jobs == second.jobs
    until(lambda: side.link.run_statistics("run").converted == 1, "it is converted")
    assert side.link.run_statistics("run").submitted == 1


def test_a_run_is_known_once_it_was_announced_or_has_a_frame(side: Side) -> None:
    for ask in (side.link.run_statistics, side.link.reports):
        with pytest.raises(UnknownRunError):
            ask("nobody")
    side.link.submit([], ["empty"])
    assert side.link.run_statistics("empty") == RunStatistics(run_uid="empty")
    assert list(side.link.reports("empty")) == []
    side.link.submit([asked(side.frame("a-1.tif"), run_uid="other", key="other")])
    assert side.link.run_statistics("other").submitted == 1


def test_a_wrong_request_is_refused_alone(side: Side) -> None:
    good, outside = side.frame("a-1.tif"), side.outside()
    wrong = [asked(outside, 2), asked(good, 3, key="wrong", recipe={"rotation": 45})]
    answer = side.link.submit([asked(good), *wrong], ["run"])
    assert [job.source for job in answer.jobs] == [good]
    assert [refused.source for refused in answer.refused] == [outside, good]
    assert all(refused.reason for refused in answer.refused)


def test_a_wrong_call_is_rejected(side: Side) -> None:
    with pytest.raises(RequestRejectedError):
        side.link.submit([], [""])
    with pytest.raises(RequestRejectedError):
        side.link.frames_in("/nowhere")


def test_folders_and_missing_files_are_told(side: Side) -> None:
    frames = [side.frame(name) for name in ("b.tif", "a.tif")]
    folder = frames[0].rpartition("/")[0]
    assert side.link.frames_in(folder) == FolderAnswer(frames=sorted(frames), more=False)
    absent = side.absent()
    assert [lost.source for lost in side.link.missing([*frames, absent])] == [absent]


def test_a_server_that_has_ended_is_down(side: Side) -> None:
    seen = threading.Event()
    side.link.watch(lambda server: seen.set() if server.down else None)
    assert side.link.server.connected
    side.stop()
    assert seen.wait(30), "those who watch are told"
    assert side.link.server.down
    assert side.link.server.trouble
    for call in (lambda: side.link.submit([], ["run"]), lambda: side.link.run_statistics("run")):
        with pytest.raises(LinkDownError):
            call()
