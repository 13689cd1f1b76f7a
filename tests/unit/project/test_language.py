"""Product text is plain English: phrases that read like a translation do not come back."""

import re
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).parents[3]
CHECKED = ("tango_server", "petif_bluesky", "docs", "examples", "README.md", "CONTRIBUTING.md")
SUFFIXES = {".py", ".md", ".ipynb"}
PHRASES = (
    r"can't be listened at",
    r"did not do it\b",
    r"it takes long\b",
    r"look(s|ed|ing)? (at|into|again)\b",
    r"a look\b",
    r"found [^.\"]*; expected\b",
    r"there is no such name\b",
    r"its life\b",
    r"tells of\b",
    r"mend(s|ed|ing)?\b",
    r"stumbl(e|es|ed|ing)\b",
    r"goes? by\b",
    r"(is|are|was|were|be) told\b",
    r"tells\b",
    r"(is|are|was|were|be) asked\b",
    r"whoever\b",
    r"(everybody|somebody)\b",
    r"so many\b",
    r"of before\b",
    r"none but\b",
    r"in its turn\b",
    r"for good\b",
    r"at work\b",
    r"trouble\b",
    r"put aside\b",
    r"begins? anew\b",
    r"makes? ready\b",
    r"takes? in\b",
)


def _files() -> Iterator[Path]:
    for place in CHECKED:
        path = PROJECT / place
        yield from [path] if path.is_file() else (file for file in path.rglob("*") if file.suffix in SUFFIXES)


def test_phrases_of_the_old_dialect_are_gone() -> None:
    pattern = re.compile(rf"\b(?:{'|'.join(PHRASES)})")
    found = []
    for file in _files():
        text = file.read_text(encoding="utf-8").lower()  # as a whole, which takes a tenth of the time of its lines
        found += [f"{file.name}:{text.count(chr(10), 0, hit.start()) + 1}: {hit[0]}" for hit in pattern.finditer(text)]
    assert found == []


def test_everything_to_check_exists() -> None:
    assert [place for place in CHECKED if not (PROJECT / place).exists()] == []
