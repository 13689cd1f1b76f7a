"""What a few bytes of a pickle could ask for: refused before it is built."""

import pickle
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from petif_bluesky.remote import safe_pickle


def calling(module: str, name: str, *arguments: object) -> bytes:
    """A pickle that calls something with arguments, as `REDUCE` does."""
    head = b"\x80\x04" + f"c{module}\n{name}\n".encode()
    inner = pickle.dumps(tuple(arguments), 4)[2:-1]
    if inner[:1] == b"\x95":  # a frame, whose length would not fit any more
        inner = inner[9:]
    return head + inner + b"R."


def nested(depth: int) -> bytes:
    value: list[Any] = []
    for _ in range(depth):
        value = [value] * 10
    return pickle.dumps(value)


def endless() -> bytes:
    value: list[Any] = []
    value.append(value)
    return pickle.dumps(value)


HUGE: dict[str, Callable[[], bytes]] = {
    "bytearray": lambda: calling("builtins", "bytearray", 2**31),
    "array": lambda: calling("numpy", "ndarray", (2**31,)),
    "array by name": lambda: (
        b"\x80\x04cnumpy._core.multiarray\n_reconstruct\n"
        b"cnumpy\nndarray\n" + pickle.dumps((2**31,), 4)[11:-1] + b"C\x01b\x87R."
    ),
    "number": lambda: b"\x80\x04cnumpy._core.multiarray\nscalar\ncnumpy\ndtype\n\x8c\x0bV2000000000\x85R\x85R.",
    "codec": lambda: calling("_codecs", "encode", b"a" * 100, "hex"),
    "values": lambda: nested(12),
    "endless": endless,
    "instructions": lambda: pickle.dumps(list(range(20_000))),
    "no pickle": lambda: b"\x80\x04garbage",
}


@pytest.mark.parametrize("name", HUGE)
def test_small_pickles_take_no_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_pickle, "MOST_INSTRUCTIONS", 10_000)
    data = HUGE[name]()
    tracemalloc.start()
    try:
        with pytest.raises(pickle.UnpicklingError):
            safe_pickle.loads(data)
        assert tracemalloc.get_traced_memory()[1] < 200e6, name
    finally:
        tracemalloc.stop()


def test_large_messages_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_pickle, "LARGEST", 1000)
    with pytest.raises(pickle.UnpicklingError, match="1000"):
        safe_pickle.loads(pickle.dumps("a" * 2000))


@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
def test_bytes_and_arrays_are_unpickled(protocol: int) -> None:
    value = {"b": b"\x00\xff", "ba": bytearray(b"ab"), "a": np.arange(6.0).reshape(2, 3), "f": np.float32(2.5)}
    value["same"] = [value["a"]] * 3
    np.testing.assert_equal(safe_pickle.loads(pickle.dumps(value, protocol)), value)
