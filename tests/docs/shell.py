"""The commands in blocks of shell lines, one by one."""

import re
import shlex
from dataclasses import dataclass

from tests.docs.pages import Block

_ASSIGNMENT = re.compile(r"^\w+=")
_HEREDOC = re.compile(r"<<'(\w+)'\n(.*?)\n\1\n", re.DOTALL)
_BEFORE_COMMENT = re.compile(r"""(?:[^'"#]|'[^']*'|"(?:\\.|[^"\\])*"|(?<=\S)\#)*""")
_SEPARATORS = {"&&", "||", "|", ";", "&"}


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a block: its words, without variables set before it, and what it reads (a here document)."""

    block: Block
    words: list[str]
    reads: str = ""

    @property
    def program(self) -> str:
        """The name of the program, without its folder."""
        return self.words[0].rpartition("/")[2]

    def __str__(self) -> str:
        return f"{self.block.place} {shlex.join(self.words)}"


def commands(block: Block) -> list[Command]:
    """Return the commands of a block."""
    texts = [match[2] for match in _HEREDOC.finditer(block.text)]
    text = _HEREDOC.sub("\n", block.text).replace("\\\n", " ")
    found = []
    for line in text.splitlines():
        words: list[str] = []
        for word in [*_split(line, block.place), ";"]:
            if word not in _SEPARATORS:
                words.append(word)
                continue
            if words:
                found += _command(block, words, texts)
            words = []
    return found


def _split(line: str, place: str) -> list[str]:
    before = _BEFORE_COMMENT.match(line)
    lexer = shlex.shlex(before[0] if before else "", posix=True, punctuation_chars=True)
    lexer.commenters = ""
    lexer.wordchars += "#:@{}[],*+%$"
    try:
        return list(lexer)
    except ValueError as error:
        raise ValueError(f"{place}: found a line that no shell could read ({error}): {line}") from error


def _command(block: Block, words: list[str], texts: list[str]) -> list[Command]:
    while words and _ASSIGNMENT.match(words[0]):
        words = words[1:]
    if words[:1] == ["runuser"]:
        inner = words.index("--") + 1
        return [Command(block, words[:inner]), *_command(block, words[inner:], texts)]
    reads = texts.pop(0) if words[:2] == ["python", "-"] and texts else ""
    return [Command(block, words, reads)] if words else []
