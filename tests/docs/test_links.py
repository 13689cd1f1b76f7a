"""Links of the Markdown as GitHub follows them: to files of this repository, and to headings in them."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from tests.docs.pages import PAGES, PROJECT, anchors, links, name_of


def wrong_links(page: Path) -> Iterator[str]:
    for link in links(page):
        path, _, anchor = unquote(link).partition("#")
        if ":" in path:
            continue  # an address
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or not target.is_relative_to(PROJECT):
            yield f"{name_of(page)}: {link}: no such file"
        elif anchor and anchor not in anchors(target):
            yield f"{name_of(page)}: {link}: no such heading; there are {sorted(anchors(target))}"


def test_links_point_to_files_and_headings() -> None:
    assert not [wrong for page in PAGES for wrong in wrong_links(page)]


def test_readme_links_to_the_documentation() -> None:
    assert "docs/index.md" in links(PROJECT / "README.md")
