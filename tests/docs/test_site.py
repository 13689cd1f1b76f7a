"""The site is built without a warning, and every link within it leads somewhere."""

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.pages import DOCS, PROJECT

REPOSITORY = "https://github.com/petif-bluesky/petif-bluesky/"


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    built = subprocess.run(
        [*command, "-d", str(folder / "doctrees"), str(DOCS), str(folder / "html")],
        check=False,
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert built.returncode == 0, built.stderr
    return folder / "html"


class Page(HTMLParser):
    """The anchors and the links of one page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del tag
        self.anchors |= {value for name, value in attrs if name in {"id", "name"} and value}
        self.links += [value for name, value in attrs if name in {"href", "src"} and value]


def trouble(page: Page, link: str, pages: dict[Path, Page]) -> str | None:
    """Return what is wrong with a link."""
    if link.startswith(REPOSITORY):
        kind, _, rest = link.removeprefix(REPOSITORY).partition("/main/")
        wanted = PROJECT / urlsplit(rest).path
        return None if kind in {"blob", "tree"} and wanted.exists() else f"{link}: no such file"
    parts = urlsplit(link)
    if parts.scheme or link.startswith("//"):
        return None
    target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
    if not target.exists():
        return f"{link}: no such page"
    if parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
        return f"{link}: no such anchor"
    return None


@pytest.mark.timeout(120)
def test_all_links_of_the_site_work(site: Path) -> None:
    pages = {path: Page(path) for path in site.resolve().rglob("*.html") if "_static" not in path.parts}
    assert len(pages) > len(list(DOCS.rglob("*.md")))  # search and index, too
    links = [(page, link) for page in pages.values() for link in page.links if link != REPOSITORY.rstrip("/")]
    assert any(link.startswith(REPOSITORY) for _, link in links)
    found = {
        f"{page.path.relative_to(site.resolve())}: {wrong}"
        for page, link in links
        if (wrong := trouble(page, link, pages)) is not None
    }
    assert not found


def test_public_names_are_in_the_reference(site: Path) -> None:
    names = {
        "petif_bluesky.PETifConverter",
        "petif_bluesky.ConversionCallback",
        "petif_bluesky.plans.reprocess_run",
        "petif_bluesky.sim.SimulatedPerkinElmer",
        "petif_bluesky.testing.FakeServer",
        "tango_server.recipe.Recipe.preset",
        "tango_server.messages.FrameReport",
        "tango_server.conversion.convert_file",
        "tango_server.conversion.errors.OutputExistsError",
    }
    assert not names - Page(site / "reference" / "api.html").anchors
