"""`--frames`: the indices that a text selects are those that Python's own slice selects."""

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tango_server.commands.frame_slice import FrameSlice, indices_of

BOUND = st.none() | st.integers(-20, 20)


def chosen(text: str) -> slice:
    return FrameSlice().convert(text, None, None)


def shown(part: int | None) -> str:
    return "" if part is None else str(part)


@given(BOUND, BOUND, st.none() | st.integers(1, 20), st.integers(0, 12))
def test_slice_is_pythons(start: int | None, stop: int | None, step: int | None, frames: int) -> None:
    texts = [f"{shown(start)}:{shown(stop)}:{shown(step)}"]
    texts += [f"{shown(start)}:{shown(stop)}"] if step is None else []
    for text in texts:
        assert range(frames)[chosen(text)] == range(frames)[start:stop:step]


@given(st.integers(-12, 11))
def test_an_index_selects_one_frame(index: int) -> None:
    assert list(range(12)[chosen(str(index))]) == [range(12)[index]]


@pytest.mark.parametrize("text", ["", "a", "1.5", "0:10:0", "0:10:-1", "1:2:3:4", "1,2", "99999999999"])
def test_other_texts_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match="as 0:100:2"):
        chosen(text)


def test_a_client_names_each_frame_and_needs_a_stop() -> None:
    assert indices_of(None) == [{}]
    assert indices_of(chosen("1:6:2")) == [{"frame": 1}, {"frame": 3}, {"frame": 5}]
    assert indices_of(chosen("7")) == [{"frame": 7}]
    for text in ("5:", "-3:", "-1", "::2", "4:4", "0:99999999"):
        with pytest.raises(click.UsageError, match="--frames"):
            indices_of(chosen(text))
