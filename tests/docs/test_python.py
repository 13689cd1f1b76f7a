"""Python in the documentation: it compiles, what it imports exists, and with names that exist."""

import ast
import importlib

import pytest

from tests.docs.pages import Block, blocks

ELSEWHERE = {"bluesky_kafka"}
"""Packages of other people that are no part of any extra."""

by_place = pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.place)


@by_place
def test_it_compiles_and_imports_what_exists(block: Block) -> None:
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
