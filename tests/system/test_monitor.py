"""`petif monitor` in a real browser, against a real server."""

import http.client
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import tango
from playwright.sync_api import Browser, Locator, expect

from petif_bluesky.sim.qxrd_file import write_frame
from tango_server.client.local_server import LocalServer
from tango_server.recipe import Recipe
from tests.leaks import children
from tests.system.monitor_page import MonitorProcess, Opened, chromium, run_monitor
from tests.system.waiting import submit, until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for another process")
expect.set_options(timeout=20_000)
RUN = "5f1c9e1e-0000-4000-8000-000000000001"
TURNED = Recipe.preset("xdi", rotation=90).model_dump(mode="json")
SHAPE = (600, 600)


@pytest.fixture(scope="module")
def browser(long_lived: set[int]) -> Iterator[Browser]:
    """One browser for all tests here; its processes come and go as it likes."""
    before = {child.pid for child in children(long_lived)}
    with chromium() as browser:
        long_lived |= {child.pid for child in children(long_lived)} - before
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


IMAGE = np.arange(SHAPE[0] * SHAPE[1], dtype=np.float32).reshape(SHAPE)
"""Each pixel tells where it is."""


def frame(folder: Path, number: int) -> Path:
    path = folder / f"frame-{number:05d}.tif"
    write_frame(path, IMAGE, document_name=path.name, acquired=datetime.now())
    return path


def requests(*paths: Path) -> list[dict[str, object]]:
    return [{"source": str(path), "recipe": TURNED, "run_uid": RUN, "stream": "primary"} for path in paths]


def number(opened: Opened, name: str) -> Locator:
    return opened.page.locator(f"[data-number='{name}']")


@pytest.mark.long
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
    assert opened.evaluate("raw-image", "it.data.image[0].shape") == [300, 300]  # 600 pixels, averaged by 2
    row = page.locator("table.runs tbody tr")
    expect(row).to_have_count(1)
    expect(row.locator("td")).to_have_text(
        [RUN, "3", "3", "0", "0", "0", "0", re.compile("^[0-9.]+ m?s / [0-9.]+ m?s$")]
    )
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

    page.get_by_role("button", name="Acknowledge").click()
    page.get_by_role("button", name="Yes, clear the alarm").click()
    expect(state).to_have_text("ON")
    expect(failure).to_have_count(1)

    broken.write_bytes(whole)
    retry = page.get_by_role("button", name="Retry failed frames")
    retry.click()
    page.get_by_role("button", name="No", exact=True).click()
    expect(retry).to_be_visible()
    assert proxy.read_attribute("NumFailed").value == 1  # nothing was done
    retry.click()
    page.get_by_role("button", name="Yes, retry 1 frame").click()
    expect(page.get_by_text("Retrying 1 frame.")).to_be_visible()
    expect(number(opened, "Converted")).to_have_text("4")
    expect(page.get_by_text("No failed frames.")).to_be_visible()
    expect(state).to_have_text("ON")
    assert (root / "processed" / broken.name).exists()
    assert opened.errors == []
    assert opened.strangers == []  # a control room has no way to the internet


@pytest.mark.long
def test_page_survives_a_server_restart_and_reports_its_own_end(
    server: LocalServer, start_server: Callable[..., LocalServer], browser: Browser, root: Path
) -> None:
    monitor = MonitorProcess(server.address)
    try:
        opened = Opened(browser.new_page(), monitor.url)
        expect(opened.page.locator(".state")).to_have_text("ON")
        port = server.address.split("/")[2].split(":")[1]
        server.stop()
        expect(opened.page.locator(".state")).to_have_text("NO ANSWER")
        silence = re.compile(r"No answer since \d\d:\d\d:\d\d from " + re.escape(server.address))
        expect(opened.page.locator(".status")).to_have_text(silence)
        expect(opened.page.locator(".status")).to_contain_text("petif serve")

        again = start_server("--port", port)
        expect(opened.page.locator(".state")).to_have_text("ON")
        submit(tango.DeviceProxy(again.address), *requests(frame(root / "raw", 1)))
        expect(number(opened, "Converted")).to_have_text("1")
        opened.until("history", "it.data.backlog.some(each => isNaN(each))")  # a gap in the lines
    finally:
        code, errors = monitor.stop()
    expect(opened.page.get_by_text("This page is frozen").first).to_be_visible()
    assert (code, errors) == (0, "")


@pytest.mark.long
def test_a_read_only_page_shows_all_and_changes_nothing(
    server: LocalServer, proxy: tango.DeviceProxy, root: Path, tmp_path: Path, open_page: Callable[..., Opened]
) -> None:
    opened = open_page(server.address, "--read-only")
    page = opened.page
    first, second = frame(root / "raw", 1), frame(root / "raw", 2)
    submit(proxy, *requests(first))
    opened.until("converted-image", "it.data.image.length == 1")
    expect(page.get_by_text("Last failures")).to_be_visible()
    expect(page.get_by_role("button")).to_have_count(0)

    box = page.locator(".bk-Figure").nth(3).bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 200, box["y"] + 150)
    for _ in range(4):
        page.mouse.wheel(0, -300)
    opened.until("raw-image", "it.data.dw[0] < 500 && it.data.dh[0] < 500")
    until(lambda: shows_one_part(opened), "both sides show the same part of the frame, with its very pixels")
    page.screenshot(path=tmp_path / "zoomed.png")

    output = root / "processed" / second.name
    submit(proxy, *requests(second))
    until(output.exists, "the second frame is converted")
    second.unlink()
    output.unlink()
    expect(page.get_by_text("The computer that runs this page cannot read the file")).to_have_count(2)
    assert answer_to_a_page_of("http://evil.example", page.url) == HTTPStatus.FORBIDDEN
    assert answer_to_a_page_of(page.url.rstrip("/"), page.url) == HTTPStatus.SWITCHING_PROTOCOLS
    assert opened.errors == []


@pytest.mark.long
def test_a_map_grows_and_a_click_on_a_point_shows_its_frame(
    server: LocalServer, proxy: tango.DeviceProxy, root: Path, open_page: Callable[..., Opened]
) -> None:
    values = np.array([[3, 4, 9], [5, 2, 7]], np.float32)
    recipe = {**Recipe.preset("xdi").model_dump(mode="json"), "map": {}}
    submitted = []
    for point, value in enumerate(values.flat):
        path = root / "raw" / f"point-{point}.tif"
        image = np.full((40, 50), value, np.float32)
        image[7, 9] = 100 - value
        write_frame(path, image, document_name=path.name, acquired=datetime.now())
        where = {"point": point, "shape": [2, 3], "motors": ["sample_y", "sample_x"], "name": "sample"}
        submitted.append({"source": str(path), "recipe": recipe, "run_uid": RUN, "stream": "primary", "map": where})
    opened = open_page(server.address)
    expect(opened.page.get_by_text("Map of the last run with one")).to_be_hidden()
    submit(proxy, *submitted[:5])
    expect(opened.page.get_by_text(f"run {RUN}: 5 of 6 points")).to_be_visible()
    totals = values * 1999 + 100 - values
    assert shown_map(opened) == [*totals.flat[:5], None]
    submit(proxy, submitted[5])
    expect(opened.page.get_by_text(f"run {RUN}: 6 of 6 points")).to_be_visible()
    assert shown_map(opened) == [*totals.flat]
    assert opened.evaluate("map", "it.below[0].axis_label") == "column (sample_x)"

    opened.page.locator("select").filter(has_text="Sum of the pixels").select_option("Maximum")
    opened.until("map-image", "it.data.image[0].reduce((all, each) => Math.max(all, each), 0) == 98")
    assert shown_map(opened) == [*(100 - values).flat]

    figure = opened.page.locator(".bk-Figure").nth(5)  # after three plots and two images
    frame_in_it = "(bbox => [bbox.left, bbox.top, bbox.width, bbox.height])(Bokeh.index.find_one(it).frame.bbox)"
    left, top, width, height = opened.evaluate("map", frame_in_it)
    figure.click(position={"x": left + width / 2, "y": top + height * 3 / 4})  # column 1 of 3, row 1 of 2
    shown = "it.data.image[0].reduce((all, each) => Math.max(all, each), 0)"
    opened.until("converted-image", f"{shown} == 98")
    opened.until("raw-image", f"{shown} == 98")
    expect(opened.page.get_by_text("point-4.tif").first).to_be_visible()
    assert opened.errors == []


def shown_map(opened: Opened) -> list[float | None]:
    """The values of the map on the page, row by row."""
    found = opened.evaluate("map-image", "it.data.image[0].reduce((all, each) => (all.push(each), all), [])")
    return [None if value != value else value for value in found]  # noqa: PLR0124 - NaN


_PLOTS = ("frames_per_second", "latency_median", "backlog")
_TITLE_WIDTH = "(context => { context.font = 'bold 13px Helvetica'; return context.measureText(it.title.text).width })"


@pytest.mark.long
@pytest.mark.parametrize("width", [420, 768, 1280])
def test_page_fits_the_window(
    server: LocalServer, proxy: tango.DeviceProxy, root: Path, open_page: Callable[..., Opened], width: int
) -> None:
    write_frame(wide := root / "raw" / "wide.tif", IMAGE[:450], document_name="wide", acquired=datetime.now())
    submit(proxy, *requests(wide))
    opened = open_page(server.address)
    opened.page.set_viewport_size({"width": width, "height": 1400})
    opened.until("converted-image", "it.data.image.length == 1")
    expect(opened.page.locator("table.runs tbody tr")).to_have_count(1)
    for name in ("raw", "converted"):  # a pixel is as high as it is wide
        opened.until(name, "it.inner_width > 200 && Math.abs(it.inner_width - it.inner_height) <= 1")
        x, y = opened.evaluate(name, "[it.x_range.end - it.x_range.start, it.y_range.start - it.y_range.end]")
        assert x == pytest.approx(y)
    for name in _PLOTS:
        title, room = opened.evaluate(
            name, f"[{_TITLE_WIDTH}(document.createElement('canvas').getContext('2d')), it.inner_width]"
        )
        assert title < room, name
    elements = [*opened.page.locator(".bk-Figure").all(), *opened.page.locator(".tile, tr:visible").all()]
    boxes = [box for element in elements if (box := element.bounding_box())]
    edges = [box["x"] + box["width"] for box in boxes]
    assert max(edges) <= width, "nothing is cut off"
    assert max(box["x"] + box["width"] for box in boxes[3:5]) > 0.9 * width, "the images fill the page"


def shows_one_part(opened: Opened) -> bool:
    """Whether the browser has one part of the frame on both sides now, within the rounding to whole pixels."""
    keys = ", ".join(f"{key}: it.data.{key}[0]" for key in ("x", "y", "dw", "dh"))
    pixels = "it.data.image[0].reduce((all, each) => (all.push(each), all), [])"
    sides = {}
    for name in ("raw", "converted"):
        found = opened.evaluate(f"{name}-image", f"({{{keys}, pixels: {pixels}}})")
        image = np.array(found["pixels"]).reshape(found["dh"], found["dw"])
        sides[name] = (round(found["x"] + 0.5), round(found["y"] + 0.5), image)
    left, top, raw = sides["raw"]
    converted_left, converted_top, converted = sides["converted"]
    turned = np.rot90(IMAGE)[converted_top:, converted_left:][: converted.shape[0], : converted.shape[1]]
    return (
        max(converted.shape) < 500
        and np.array_equal(raw, IMAGE[top : top + raw.shape[0], left : left + raw.shape[1]])
        and np.array_equal(converted, turned)
        and abs(converted_left - top) <= 1
        and abs(converted_top - (SHAPE[1] - left - raw.shape[1])) <= 1
    )


def answer_to_a_page_of(origin: str, url: str) -> int:
    """Return how the program answers a browser that connects from a page of `origin`."""
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Origin": origin}
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)) as connection:
        connection.request("GET", "/ws", headers={**headers, "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="})
        return connection.getresponse().status


@pytest.mark.long
def test_page_for_the_whole_network_works_at_the_printed_address(
    server: LocalServer, start_monitor: Callable[..., MonitorProcess]
) -> None:
    monitor = start_monitor(server.address, "--host", "0.0.0.0")
    told = urlsplit(monitor.url)
    here = f"http://127.0.0.1:{told.port}"  # whether the name leads here is up to the machine's own name service
    assert answer_to_a_page_of(f"{told.scheme}://{told.netloc}", here) == HTTPStatus.SWITCHING_PROTOCOLS
    assert answer_to_a_page_of("http://evil.example", here) == HTTPStatus.FORBIDDEN


@pytest.mark.long
def test_port_in_use_is_named_with_a_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run_monitor("--port", str(port))
    assert ended.returncode == 1
    assert f"127.0.0.1:{port}: the port is in use" in ended.stderr
    assert "--port" in ended.stderr
    assert "Traceback" not in ended.stderr
