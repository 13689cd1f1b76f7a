"""A worker process and its pipe."""

import gc
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future
from contextlib import closing

import pytest

from tango_server.jobs.executors.worker_process import WorkerProcess


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
def test_nothing_of_a_broken_pipe_is_left_to_the_garbage_collector() -> None:
    """It would free the buffer of the pipe before the view of it: an error on 3.13 that no one can catch."""
    prepared: Future[None] = Future()
    with closing(WorkerProcess(lambda _: prepared.set_result(None), time.sleep)) as process:
        prepared.result(60)
        answer = process.submit([600.0])
        process.kill()
        assert isinstance(answer.exception(60), BrokenExecutor)
    left = weakref.ref(answer)
    del answer
    assert left() is None
