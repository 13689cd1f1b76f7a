"""What `petif add --wait` prints of files that are not complete yet."""

import time
from io import StringIO

import pytest
from rich.console import Console

from tango_server.commands.wait_notices import WaitNotices
from tango_server.messages import AwaitedFrame


def awaited(name: str, waited: float = 3.0) -> AwaitedFrame:
    return AwaitedFrame(source=f"/raw/{name}.tif", reason="the file ends early", waited=waited, remaining=300 - waited)


def test_late_files_are_named_once_with_reason_and_time() -> None:
    output = StringIO()
    notices = WaitNotices(Console(file=output))
    notices.show([awaited("a", 0.5)])
    assert output.getvalue() == ""  # most files are complete soon
    notices.show([awaited("a")])
    notices.show([awaited("a", 4.0)])
    (line,) = output.getvalue().splitlines()
    for fact in ("297 s", "/raw/a.tif", "the file ends early"):
        assert fact in line


def test_many_files_are_counted_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    output = StringIO()
    notices = WaitNotices(Console(file=output))
    files = [awaited(str(number), 10) for number in range(12)]
    notices.show(files)
    assert len(output.getvalue().splitlines()) == 5
    begun = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: begun + 31)
    notices.show(files)
    notices.show(files)
    last = output.getvalue().splitlines()[5:]
    assert len(last) == 1
    assert "12 incomplete files" in last[0]
    assert "290 s" in last[0]
