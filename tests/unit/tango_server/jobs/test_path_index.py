"""A packed mapping does as a dict does, with folders opened and packed all the time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tango_server.jobs import path_index
from tango_server.jobs.path_index import PathIndex, packed_names, unpacked_names
from tango_server.jobs.watch.folder_state import Identity, Known, _as_json, _of_json

NAMES = st.builds("/".join, st.lists(st.sampled_from(["a", "b", "c \udce9", "d"]), min_size=1, max_size=3))
VALUES = st.builds(
    Known,
    st.integers(0, 2**40),
    st.none() | st.builds(Identity, st.integers(-1, 2**70), st.integers(-(2**70), 2**70)),
    st.none() | st.text(max_size=4),
    st.none() | st.floats(0, 2e9),
)
STEPS = st.lists(st.tuples(st.sampled_from(["set", "set", "get", "pop", "all"]), NAMES, VALUES), max_size=40)


@settings(max_examples=60)
@given(known=st.dictionaries(NAMES, VALUES, max_size=12), steps=STEPS)
def test_it_does_as_a_dict_does(known: dict[str, Known], steps: list[tuple[str, str, Known]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(path_index, "_OPEN", 2)
        packed, plain = PathIndex(known, _as_json, _of_json), dict(known)
        for step, name, value in steps:
            match step:
                case "set":
                    packed[name] = plain[name] = value
                case "get":
                    assert packed.get(name) == plain.get(name)
                case "pop":
                    assert packed.pop(name, None) == plain.pop(name, None)
                case "all":
                    assert dict(packed.items()) == plain
            assert len(packed) == len(plain)
            assert (name in packed) == (name in plain)
        assert dict(packed.items()) == plain


@given(names=st.sets(st.text(st.characters(exclude_characters="\0/"), min_size=1)))
def test_packed_names_come_back(names: set[str]) -> None:
    assert unpacked_names(packed_names(names)) == names
