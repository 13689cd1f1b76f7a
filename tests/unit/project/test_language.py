"""Product text is plain English: phrases that read like a translation do not come back."""

import re
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).parents[3]
CHECKED = ("tango_server", "petif_bluesky", "docs", "examples", "README.md", "CONTRIBUTING.md")
SUFFIXES = {".py", ".md", ".ipynb"}
PHRASES = (
    r"can't be listened at",
    r"\bdid not do it\b",
    r"\bit takes long\b",
    r"\blook(s|ed|ing)? (at|into|again)\b",
    r"\ba look\b",
    r"\bfound [^.\"]*; expected\b",
    r"\bthere is no such name\b",
    r"\bits life\b",
    r"\btells of\b",
    r"\bmend(s|ed|ing)?\b",
    r"\bstumbl(e|es|ed|ing)\b",
    r"\bgoes? by\b",
    r"\b(is|are|was|were|be) told\b",
    r"\btells\b",
    r"\b(is|are|was|were|be) asked\b",
    r"\bwhoever\b",
    r"\b(everybody|somebody)\b",
    r"\bso many\b",
    r"\bof before\b",
    r"\bnone but\b",
    r"\bin its turn\b",
    r"\bfor good\b",
    r"\bat work\b",
    r"\btrouble\b",
    r"\bput aside\b",
    r"\bbegins? anew\b",
    r"\bmakes? ready\b",
    r"\btakes? in\b",
)


def _files() -> Iterator[Path]:
    for place in CHECKED:
        path = PROJECT / place
        yield from [path] if path.is_file() else (file for file in path.rglob("*") if file.suffix in SUFFIXES)


def test_phrases_of_the_old_dialect_are_gone() -> None:
    pattern = re.compile("|".join(PHRASES))
    found = []
    for file in _files():
        text = file.read_text(encoding="utf-8").lower()  # as a whole, which takes a tenth of the time of its lines
        found += [f"{file.name}:{text.count(chr(10), 0, hit.start()) + 1}: {hit[0]}" for hit in pattern.finditer(text)]
    assert found == []


def test_everything_to_check_exists() -> None:
    assert [place for place in CHECKED if not (PROJECT / place).exists()] == []
