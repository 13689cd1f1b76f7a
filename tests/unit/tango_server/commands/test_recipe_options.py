"""The words of --preset and --flip."""

from typing import get_args

from tango_server.commands.recipe_options import FLIPS, PRESET_USES
from tango_server.recipe import PRESETS, Flip


def test_every_word_has_a_meaning() -> None:
    assert set(FLIPS) == set(get_args(Flip))
    assert set(PRESET_USES) == set(PRESETS)
