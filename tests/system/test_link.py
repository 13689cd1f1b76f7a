"""The connection of a bluesky session to a real server that hangs, ends and comes back."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import tango
from tango.utils import PyTangoThread

from petif_bluesky.link import LinkDownError, LinkError, TangoLink, UnknownRunError
from tango_server.client.local_server import LocalServer
from tests.system.waiting import until

TIME_OUT = 1.2
SLACK = 2.0  # of a busy machine; calls that wait one after the other would take longer

Start = Callable[..., LocalServer]

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs the SIGSTOP and /proc of Linux")


@pytest.fixture
def link(server: LocalServer) -> Iterator[TangoLink]:
    """A link that knows a run."""
    link = TangoLink(server.address, TIME_OUT)
    assert link.wait_for_first_look(10).connected
    link.submit([], ["run"])
    yield link
    link.close()


def freeze(server: LocalServer) -> psutil.Process:
    """Stop the server, so that the system takes connections for it that nobody answers."""
    process = psutil.Process(server.pid)
    process.suspend()
    until(lambda: all(thread == "T" for thread in states_of_threads(process.pid)), "the server stands still")
    return process


def states_of_threads(pid: int) -> list[str]:
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return [stat.rpartition(")")[2].split()[0] for stat in stats]


@pytest.fixture
def frozen(server: LocalServer, link: TangoLink) -> Iterator[psutil.Process]:
    process = freeze(server)
    yield process
    with suppress(psutil.NoSuchProcess):
        process.resume()


def seconds_without_answer(link: TangoLink) -> float:
    begun = time.monotonic()
    with pytest.raises(LinkDownError, match=r"found no answer to GetRunStatistics.*expected a running server"):
        link.run_statistics("run")
    return time.monotonic() - begun


def answers(link: TangoLink) -> bool:
    try:
        return link.run_statistics("run").submitted == 0
    except LinkError:
        return False


def test_one_proxy_is_enough(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    real = tango.DeviceProxy
    monkeypatch.setattr(tango, "DeviceProxy", lambda address: made.append(address) or real(address))
    link = TangoLink(server.address)
    link.wait_for_first_look(10)
    for _ in range(20):
        with pytest.raises(UnknownRunError, match="nobody"):
            link.run_statistics("nobody")
    link.close()
    assert made == [server.address]


def test_frozen_server_costs_a_time_out_a_call(link: TangoLink, frozen: psutil.Process) -> None:
    first = seconds_without_answer(link)
    assert first < 2 * TIME_OUT + SLACK  # Tango asks once more whether a device is alive that has just answered
    assert max(seconds_without_answer(link) for _ in range(2)) < TIME_OUT + SLACK
    until(lambda: link.server.down, "the link's own look has failed, too")
    frozen.resume()
    until(lambda: answers(link), "the link works again")
    until(lambda: link.server.connected, "the link has noticed")


def test_calls_at_a_time_share_one_time_out(link: TangoLink, frozen: psutil.Process) -> None:
    seconds_without_answer(link)
    took: list[float] = []
    together = threading.Barrier(4)

    def call() -> None:
        together.wait()
        took.append(seconds_without_answer(link))

    threads = [PyTangoThread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(took) == 4
    assert max(took) < TIME_OUT + SLACK


@pytest.mark.parametrize("way", ["stopped", "killed while frozen"])
def test_a_server_that_is_started_again_is_found_again(
    link: TangoLink, server: LocalServer, start_server: Start, way: str
) -> None:
    if way == "killed while frozen":
        process = freeze(server)
        seconds_without_answer(link)
        process.kill()
    server.stop()
    assert seconds_without_answer(link) < SLACK
    again = start_server("--port", server.address.split(":")[2].split("/")[0])
    assert again.address == server.address
    until(lambda: answers(link), "the link works again")
    until(lambda: link.server.connected, "the link has noticed")


def test_link_made_while_the_server_is_frozen_works_later(server: LocalServer, frozen: psutil.Process) -> None:
    late = TangoLink(server.address, TIME_OUT)
    late.wait_for_first_look(20)
    assert late.server.down
    assert seconds_without_answer(late) < TIME_OUT + SLACK
    frozen.resume()
    until(lambda: answers(late), "the link works")
    late.close()
