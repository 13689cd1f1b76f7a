"""Datums are found again whatever their ids look like, beside a plain dict of them."""

from hypothesis import example, given
from hypothesis import strategies as st

from petif_bluesky.documents.assets import Assets
from petif_bluesky.documents.file_series import PassedOver

FILES = PassedOver("of no interest")
RESOURCES = ("r", "s", "r/0")
IDS = st.builds(
    "{}/{}".format, st.sampled_from(RESOURCES), st.integers(-1, 5) | st.sampled_from(["01", "", "x", "1" * 30])
)
POINTS = st.integers(-(2**70), 2**70) | st.integers(0, 3)


@given(st.lists(st.tuples(IDS, st.sampled_from(RESOURCES), POINTS), max_size=30))
@example([("r/0", "r", 7), ("r/1", "r", 8), ("r/3", "r", 9), ("r/2", "r", 10), ("r/3", "r", 11), ("r/0", "r", 1)])
@example([("r/0", "s", 1), ("r/0", "r", 2), ("s/0", "s", 2**63), ("s/0", "s", 5)])
def test_latest_value_of_each_datum_is_found(datums: list[tuple[str, str, int]]) -> None:
    assets, known = Assets(), {}
    for uid in RESOURCES:
        assets.add_resource(uid, FILES, "run")
    for datum_id, resource, point in datums:
        assets.add_datum(datum_id, resource, point)
        known[datum_id] = (FILES, point)
        assert {each: assets.datum(each, "run") for each in known} == known
    assets.end_run("run", ())
    assert all(assets.datum(each, "run") is None for each in known)
    assert len(assets) == len(RESOURCES)
