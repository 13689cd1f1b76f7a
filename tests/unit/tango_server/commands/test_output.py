"""Tables in terminals of any width, and in pipes."""

from io import StringIO

import pytest
from rich.cells import cell_len
from rich.console import Console

from tango_server.commands.output import Cell, show_table

RAW = "/data/2026/raw/alumina heating ramp/alumina-1-00001.tif"
REASON = f"not complete: {RAW} ends early. Check what wrote it."


def shown(monkeypatch: pytest.MonkeyPatch, width: int, title: str = "") -> list[str]:
    """Return the lines of a table in a terminal of this width."""
    output = StringIO()
    screen = Console(file=output, width=width, highlight=False, no_color=True, force_terminal=False)
    monkeypatch.setattr("tango_server.commands.output.console", lambda: screen)
    show_table(("time", "frame", "reason"), [("12:00:00", RAW, Cell(REASON)), ("12:00:01", "a.tif", "é[b]")], title)
    return output.getvalue().splitlines()


def test_wide_table_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n".join(shown(monkeypatch, 10_000))
    assert RAW in text
    assert REASON in text
    assert "é[b]" in text


@pytest.mark.parametrize("width", [50, 80, 120])
def test_narrow_terminal_cuts_the_middle_of_a_path(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    lines = shown(monkeypatch, width)
    assert all(len(line) <= width for line in lines)
    first = next(line for line in lines if "12:00:00" in line)
    path = first.split("│")[2].strip()
    assert path.startswith("/data")
    assert path.endswith("01.tif")
    assert "…" in path
    following = lines[lines.index(first) + 1]
    assert not following.split("│")[2].strip(), "the path takes one line"
    words = " ".join(line.split("│")[3].strip() for line in lines if line.startswith("│"))
    for word in ("not", "complete:", "ends", "early.", "Check", "wrote"):
        assert word in words.split()


def test_title_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "run alumina-heating-ramp-from-300-to-1200-K-in-steps-of-25-K-1"
    assert shown(monkeypatch, 10_000, name)[0] == name
    cut = shown(monkeypatch, 40, name)[0]
    assert len(cut) == 40
    assert cut.startswith("run alumina")
    assert cut.endswith("25-K-1")


def test_wide_characters_count_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    output = StringIO()
    screen = Console(file=output, width=30, highlight=False, no_color=True)
    monkeypatch.setattr("tango_server.commands.output.console", lambda: screen)
    show_table(("frame",), [("/data/" + "試料" * 20 + "-1.tif",)])
    (line,) = (line for line in output.getvalue().splitlines() if "data" in line)
    assert "-1.tif" in line
    assert cell_len(line) == 30
