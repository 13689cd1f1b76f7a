"""Links of the Markdown as GitHub follows them: to files of this repository, and to headings in them."""

from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs.pages import PAGES, PROJECT, anchors, links, name_of


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    wrong = []
    for link in links(page):
        path, _, anchor = unquote(link).partition("#")
        if ":" in path:
            continue  # an address
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or not target.is_relative_to(PROJECT):
            wrong.append(f"{link}: no such file")
        elif anchor and anchor not in anchors(target):
            wrong.append(f"{link}: no such heading; there are {sorted(anchors(target))}")
    assert not wrong


def test_the_readme_leads_to_the_documentation() -> None:
    assert "docs/index.md" in links(PROJECT / "README.md")
