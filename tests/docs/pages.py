"""What stands in the Markdown of this repository: links, headings, code blocks; read as GitHub reads it."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

PROJECT = Path(__file__).parents[2]
DOCS = PROJECT / "docs"
PAGES = sorted(
    path
    for path in (*PROJECT.glob("*.md"), *DOCS.rglob("*.md"), *(PROJECT / "examples").rglob("*.md"))
    if "_build" not in path.parts
)
_MARKDOWN = MarkdownIt("gfm-like", {"linkify": False})


def name_of(path: Path) -> str:
    """Return the path of a page within the repository: the name of its tests."""
    return path.relative_to(PROJECT).as_posix()


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced code block: its page, its first line there, its language and its text."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{name_of(self.page)}:{self.line}"


def blocks(*languages: str, pages: list[Path] | None = None) -> list[Block]:
    """Return the code blocks of the pages (all, unless told otherwise) that are in one of the languages (or any)."""
    return [
        Block(page, token.map[0] + 1, token.info.strip(), token.content)
        for page in pages or PAGES
        for token in _tokens(page)
        if token.type == "fence" and token.map and (not languages or token.info.strip() in languages)
    ]


def failures(things: Iterable[Any], check: Callable[[Any], object], place: Callable[[Any], str] = str) -> list[str]:
    """Return a line for each of the things that does not pass a check: its place, and what is wrong."""
    found = []
    for thing in things:
        try:
            check(thing)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one, all are shown
            found.append(f"{place(thing)}: {type(error).__name__}: {error}")
    return found


def links(page: Path) -> list[str]:
    """Return the targets of the links and pictures of a page."""
    found = [token.attrGet("href") or token.attrGet("src") for token in _inline(page)]
    return [str(target) for target in found if target]


def inline_code(page: Path) -> list[str]:
    """Return what stands as code within the sentences of a page."""
    return [token.content for token in _inline(page) if token.type == "code_inline" and token.content.strip()]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in _headings(page):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


@cache
def _tokens(page: Path) -> list[Token]:
    return _MARKDOWN.parse(page.read_text(encoding="utf-8"))


def _inline(page: Path) -> Iterator[Token]:
    for token in _tokens(page):
        yield from token.children or ()


def _headings(page: Path) -> Iterator[str]:
    tokens = _tokens(page)
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            yield "".join(child.content for child in inline.children or () if child.type in {"text", "code_inline"})
