"""Documents from the network: plain data comes through unchanged, and no pickle runs a program."""

import os
import pickle
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from petif_bluesky.remote import safe_pickle

DOCUMENT = {
    "uid": "a",
    "data": {"x": np.float64(1.5), "array": np.arange(6).reshape(2, 3), "text": "é", "names": np.array(["a", "b"])},
    "other": [None, True, 1, 2.5, b"bytes", {1, 2}, (3, 4), datetime(2026, 1, 1, tzinfo=UTC), UUID(int=5), 1j],
}


@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
def test_plain_documents_are_unpickled(protocol: int) -> None:
    found = safe_pickle.loads(pickle.dumps(DOCUMENT, protocol))
    np.testing.assert_equal(found, DOCUMENT)


def test_old_start_facts_class_becomes_a_dict() -> None:
    made = b"cpetif_bluesky.wrapping\nStartFacts\n)R(Vrecipe\nNu."  # as pickle has a subclass of dict with one item
    found = safe_pickle.loads(pickle.dumps({"conversion": None})[:0] + b"}Vconversion\n" + made[:-1] + b"s.")
    assert found == {"conversion": {"recipe": None}}
    assert type(found["conversion"]) is dict


class Program:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_pickle_cannot_run_code(tmp_path: Path) -> None:
    data = pickle.dumps({"data": {"x": Program(tmp_path / "made")}})
    with pytest.raises(pickle.UnpicklingError, match="--any-pickle"):
        safe_pickle.loads(data)
    assert not (tmp_path / "made").exists()
    pickle.loads(data)
    assert (tmp_path / "made").exists()
