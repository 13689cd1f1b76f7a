"""`petif` in this process: what it answers, without an interpreter of its own."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tango_server.cli import petif

Call = Callable[..., Result]


def petif_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Return a function that runs `petif` in a folder, with one worker process unless it is told another number."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(petif, arguments, catch_exceptions=False)

    return call
