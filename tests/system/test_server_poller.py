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

from petif_bluesky.server_poller import ServerPoller
from tango_server.client.client import Client, LinkDownError, LinkError, UnknownRunError
from tango_server.client.local_server import LocalServer
from tests.system.waiting import until

TIME_OUT = 1.2
SLACK = 2.0  # of a busy machine; calls that wait one after the other would take longer

Start = Callable[..., LocalServer]

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs the SIGSTOP and /proc of Linux")


@pytest.fixture
def poller(server: LocalServer) -> Iterator[ServerPoller]:
    """A poller whose server knows a run."""
    poller = ServerPoller(Client(server.address, TIME_OUT))
    assert poller.wait_for_first_poll(10).connected
    poller.client.submit([], ["run"])
    yield poller
    poller.close()


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
def frozen(server: LocalServer, poller: ServerPoller) -> Iterator[psutil.Process]:
    process = freeze(server)
    yield process
    with suppress(psutil.NoSuchProcess):
        process.resume()


def seconds_without_answer(poller: ServerPoller) -> float:
    begun = time.monotonic()
    with pytest.raises(LinkDownError, match=r"no answer to GetRunStatistics"):
        poller.client.run_statistics("run")
    return time.monotonic() - begun


def answers(poller: ServerPoller) -> bool:
    try:
        return poller.client.run_statistics("run").submitted == 0
    except LinkError:
        return False


def test_one_proxy_is_enough(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    real = tango.DeviceProxy
    monkeypatch.setattr(tango, "DeviceProxy", lambda address: made.append(address) or real(address))
    poller = ServerPoller(Client(server.address))
    poller.wait_for_first_poll(10)
    for _ in range(20):
        with pytest.raises(UnknownRunError, match="nobody"):
            poller.client.run_statistics("nobody")
    poller.close()
    assert made == [server.address]


@pytest.mark.long
def test_call_to_a_frozen_server_times_out(poller: ServerPoller, frozen: psutil.Process) -> None:
    first = seconds_without_answer(poller)
    assert first < 2 * TIME_OUT + SLACK  # Tango asks once more whether a device is alive that has just answered
    assert max(seconds_without_answer(poller) for _ in range(2)) < TIME_OUT + SLACK
    until(lambda: poller.state.down, "the poller's own call has failed, too")
    frozen.resume()
    until(lambda: answers(poller), "calls are answered again")
    until(lambda: poller.state.connected, "the poller has noticed")


@pytest.mark.long
def test_concurrent_calls_share_one_timeout(poller: ServerPoller, frozen: psutil.Process) -> None:
    seconds_without_answer(poller)
    took: list[float] = []
    together = threading.Barrier(4)

    def call() -> None:
        together.wait()
        took.append(seconds_without_answer(poller))

    threads = [PyTangoThread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(took) == 4
    assert max(took) < TIME_OUT + SLACK


@pytest.mark.parametrize("way", ["stopped", pytest.param("killed while frozen", marks=pytest.mark.long)])
def test_restarted_server_is_found_again(
    poller: ServerPoller, server: LocalServer, start_server: Start, way: str
) -> None:
    if way == "killed while frozen":
        process = freeze(server)
        seconds_without_answer(poller)
        process.kill()
    server.stop()
    assert seconds_without_answer(poller) < SLACK
    again = start_server("--port", server.address.split(":")[2].split("/")[0])
    assert again.address == server.address
    until(lambda: answers(poller), "calls are answered again")
    until(lambda: poller.state.connected, "the poller has noticed")


@pytest.mark.long
def test_poller_made_while_the_server_is_frozen_works_later(server: LocalServer, frozen: psutil.Process) -> None:
    late = ServerPoller(Client(server.address, TIME_OUT))
    late.wait_for_first_poll(20)
    assert late.state.down
    assert seconds_without_answer(late) < TIME_OUT + SLACK
    frozen.resume()
    until(lambda: answers(late), "calls are answered")
    late.close()
