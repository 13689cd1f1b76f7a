"""`petif monitor` in a real browser, against a real server."""

import http.client
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import tango
from playwright.sync_api import Browser, expect

from petif_bluesky.sim.qxrd_file import write_frame
from tango_server.local import LocalServer
from tango_server.recipe import Recipe
from tests.system.monitor_page import MonitorProcess, Opened, chromium
from tests.system.waiting import submit

expect.set_options(timeout=20_000)
RUN = "5f1c9e1e-0000-4000-8000-000000000001"
TURNED = Recipe.preset("xdi", rotation=90).model_dump(mode="json")
SHAPE = (600, 600)


@pytest.fixture
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def start_monitor() -> Iterator[Callable[..., MonitorProcess]]:
    started: list[MonitorProcess] = []

    def start(address: str, *arguments: str) -> MonitorProcess:
        started.append(MonitorProcess(address, *arguments))
        return started[-1]

    yield start
    for monitor in started:
        monitor.stop()


@pytest.fixture
def open_page(browser: Browser, start_monitor: Callable[..., MonitorProcess]) -> Callable[..., Opened]:
    def open_it(address: str, *arguments: str) -> Opened:
        page = browser.new_page(viewport={"width": 1280, "height": 1500})
        page.set_default_timeout(20_000)
        return Opened(page, start_monitor(address, *arguments).url)

    return open_it


def frame(folder: Path, number: int) -> Path:
    """Write a frame whose every pixel tells where it is."""
    path = folder / f"frame-{number:05d}.tif"
    image = np.arange(SHAPE[0] * SHAPE[1], dtype=np.float32).reshape(SHAPE)
    write_frame(path, image, document_name=path.name, acquired=datetime.now())
    return path


def requests(*paths: Path) -> list[dict[str, object]]:
    return [{"source": str(path), "recipe": TURNED, "run_uid": RUN, "stream": "primary"} for path in paths]


def number(opened: Opened, name: str) -> object:
    return opened.page.locator(f"[data-number='{name}']")


def test_the_page_shows_frames_as_they_come_and_retries_what_failed(
    server: LocalServer, proxy: tango.DeviceProxy, root: Path, tmp_path: Path, open_page: Callable[..., Opened]
) -> None:
    opened = open_page(server.address)
    page = opened.page
    state = page.locator(".state")
    expect(state).to_have_text("ON")
    expect(number(opened, "Converted")).to_have_text("0")
    opened.until("history", "it.data.time.length >= 2")  # a live plot, without anything done

    submit(proxy, *requests(*(frame(root / "raw", each) for each in (1, 2, 3))))
    expect(number(opened, "Converted")).to_have_text("3")
    opened.until("history", "it.data.frames_per_second.some(rate => rate > 0)")
    opened.until("raw-image", "it.data.image.length == 1")
    opened.until("converted-image", "it.data.image.length == 1")
    assert opened.model("raw-image", "data.image[0].shape") == [300, 300]  # 600 pixels, averaged by 2
    row = page.locator("table.runs tbody tr")
    expect(row).to_have_count(1)
    expect(row.locator("td")).to_have_text([RUN[:8], "3", "3", "0", "0", "0", "0", expect_any()])
    page.screenshot(path=tmp_path / "converted.png")

    broken = root / "raw" / "frame-<b>4.tif"
    shutil.copy(frame(root / "raw", 4), broken)
    whole = broken.read_bytes()
    broken.write_bytes(whole[:5000])
    submit(proxy, *requests(broken))
    failure = page.locator("table.failures tbody tr")
    expect(failure).to_have_count(1)
    expect(failure).to_contain_text("frame-<b>4.tif")
    expect(failure).to_contain_text("but the file ends at 5000")
    expect(state).to_have_text("ALARM")
    page.screenshot(path=tmp_path / "failed.png")

    broken.write_bytes(whole)
    retry = page.get_by_role("button", name="Retry failed frames")
    retry.click()
    page.get_by_role("button", name="No", exact=True).click()
    expect(retry).to_be_visible()
    assert proxy.read_attribute("NumFailed").value == 1  # nothing was done
    retry.click()
    page.get_by_role("button", name="Yes, retry 1 frame").click()
    expect(page.get_by_text("1 frame is tried again.")).to_be_visible()
    expect(number(opened, "Converted")).to_have_text("4")
    expect(page.get_by_text("No frame has failed.")).to_be_visible()
    expect(state).to_have_text("ON")
    assert (root / "processed" / broken.name).exists()
    assert opened.errors == []
    assert opened.strangers == []  # a control room has no way to the internet


def expect_any() -> object:
    import re

    return re.compile("ms / .*ms")
