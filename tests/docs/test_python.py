"""Python in the documentation: it compiles, what it imports exists, and with names that exist."""

import ast
import importlib
import tempfile
from pathlib import Path

import pytest

from tests.docs.pages import Block, blocks, failures

ELSEWHERE = {"bluesky_kafka"}
"""Packages of other people that are no part of any extra."""


def check(block: Block) -> None:
    tree = ast.parse(block.text)
    compile(tree, block.place, "exec")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module not in ELSEWHERE:
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"


def test_python_blocks_compile_and_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # to import ophyd.sim makes a folder
    found = blocks("python")
    assert len(found) > 20
    assert not failures(found, check, lambda block: block.place)
