"""`petif monitor` in a process of its own, and its page in a real browser."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

_COMMAND = "from tango_server.commands.monitor import monitor; monitor()"
_READY = "ready: "
_MODEL = "Bokeh.documents.map(each => each.get_model_by_name(NAME)).find(each => each != null)"


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a headless Chromium; without one, skip the test, or fail in continuous integration."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        tell = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        tell("the page is tested in Chromium, and there is none here: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def run_monitor(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `petif monitor` until it ends by itself."""
    command = [sys.executable, "-c", _COMMAND, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


class MonitorProcess:
    """`petif monitor` for the device at `address`, on a free port, until `stop`."""

    def __init__(self, address: str, *arguments: str) -> None:
        command = [sys.executable, "-c", _COMMAND, "--device", address, "--port", "0", *arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith(_READY), self.stop()
        self.url = line.removeprefix(_READY).strip()

    def stop(self) -> tuple[int, str]:
        """Press Ctrl-C; return the exit code and what was written to standard error."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            _, errors = self._process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        return self._process.returncode, errors


class Opened:
    """The page in a browser, and what the browser has met on the way."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.errors: list[str] = []
        self.strangers: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self._asked(request.url, url))
        page.goto(url)
        page.locator(".state").wait_for()

    def _asked(self, asked: str, own: str) -> None:
        if not asked.startswith((own, "data:", "blob:")):
            self.strangers.append(asked)

    def evaluate(self, name: str, expression: str) -> Any:
        """Return what an expression of a Bokeh model `it` on the page gives, as `it.data.time.length`."""
        return self.page.evaluate(f"() => {{ const it = {_MODEL.replace('NAME', repr(name))}; return {expression} }}")

    def until(self, name: str, condition: str) -> None:
        """Wait until something holds of a Bokeh model `it` on the page."""
        model = _MODEL.replace("NAME", repr(name))
        self.page.wait_for_function(f"() => {{ const it = {model}; return it != null && ({condition}) }}")
