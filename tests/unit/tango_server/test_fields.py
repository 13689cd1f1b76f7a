"""What is written and sent has no field that version 2db7c4c did not know, as long as it has its default.

Hashes, start documents, ledger rows and outputs of that version stay comparable, and its servers and sessions, which
take an unknown key for an error, go on working with this one's.
"""

import json

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tango_server import messages
from tango_server.recipe import InPlace, NewFile, Recipe
from tango_server.recipe.esperanto import Circle, Esperanto
from tests.conftest import DATA

KNOWN: dict[str, list[str]] = json.loads((DATA / "2db7c4c" / "fields.json").read_text())
MODELS: list[type[BaseModel]] = [
    Recipe, NewFile, InPlace, Circle, Esperanto,
    *(getattr(messages, name) for name in sorted(KNOWN) if hasattr(messages, name)),
]  # fmt: skip


def is_left_out(field: FieldInfo) -> bool:
    """Whether a field is not written while it has its default."""
    return field.exclude_if is not None and field.exclude_if(field.get_default(call_default_factory=True))


def test_every_model_of_that_version_is_here() -> None:
    assert {model.__name__ for model in MODELS} >= KNOWN.keys()


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_newer_fields_are_left_out_while_they_have_their_default(model: type[BaseModel]) -> None:
    newer = {name: field for name, field in model.model_fields.items() if name not in KNOWN.get(model.__name__, [])}
    written = [name for name, field in newer.items() if not is_left_out(field)]
    assert not written, "declare them with Field(default, exclude_if=lambda value: value == default)"
