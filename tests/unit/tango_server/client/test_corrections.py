"""The corrections in use as people read them."""

import json
from typing import Any

from tango_server.client.attributes import AttributeReading
from tango_server.client.client import ServerSnapshot
from tango_server.client.corrections import age_warning, corrections_in_use, in_words
from tango_server.messages import CorrectionsInUse, Master

DARK = Master(
    kind="dark", path="/data/dark.tif", sha256="d", run_uid="0123456789ab", modified=1000.0, exposure_time=10.0
)
MASKS = (
    Master(kind="mask", path="/data/hot.tif", sha256="m"),
    Master(kind="mask", path="C:\\masks\\frame.h5::/entry/mask", sha256="m"),
)


def found(*masters: Master, **fields: Any) -> CorrectionsInUse:
    return CorrectionsInUse(detector="pe1", finished=1750.0, masters=masters, **fields)


def test_dark_flat_and_masks_are_named_with_what_is_known() -> None:
    flat = Master(kind="flat", path="/data/flat.h5::/flat", sha256="f")
    words = in_words(found(*MASKS, flat, DARK, darks=1))
    assert words == (
        "dark dark.tif (10 s exposure, 12 min old, run 01234567), flat flat.h5::/flat, "
        "mask hot.tif, frame.h5::/entry/mask"
    )
    unknown = Master(kind="dark", path="/data/dark.tif", sha256="d")
    assert in_words(found(unknown, darks=10)) == "dark dark.tif and 9 more"


def test_a_dark_older_than_its_recipe_allows_is_warned_of() -> None:
    assert "12 min old" in (warning := age_warning(found(DARK, dark_max_age=600.0)))
    assert "dark_max_age is 10 min" in warning
    assert not age_warning(found(DARK, dark_max_age=750.0))
    assert not age_warning(found(DARK))
    assert not age_warning(found(DARK.model_copy(update={"modified": None}), dark_max_age=1.0))


def test_they_are_read_from_the_attribute_and_older_servers_have_none() -> None:
    given = [found(DARK, darks=1, masked=5)]
    text = json.dumps([{**each.model_dump(mode="json"), "later": 1} for each in given])
    assert corrections_in_use(ServerSnapshot("", {"CorrectionsInUse": AttributeReading(text, 0.0)})) == tuple(given)
    for odd in ("", "no JSON", '[{"detector": 5}]'):
        assert corrections_in_use(ServerSnapshot("", {"CorrectionsInUse": AttributeReading(odd, 0.0)})) == ()
    assert corrections_in_use(ServerSnapshot("", {})) == ()
