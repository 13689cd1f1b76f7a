"""Patch runs in a Tiled catalogue: resource paths for its writer, and final statistics in the metadata."""

from collections.abc import Mapping
from typing import Any

from petif_bluesky.documents.resources import has_tiff_template
from tango_server.messages import RunStatistics


def with_trailing_slash(resource: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resource document whose path ends with a slash.

    areaDetector's template contains the slash between folder and file name, but TiledWriter joins the two as they are,
    and would register `.../folderfile.tif`. Use as `TiledWriter(client, patches={"resource": with_trailing_slash})`.
    """
    if not has_tiff_template(resource):
        return dict(resource)
    return {**resource, "resource_path": resource["resource_path"].rstrip("/") + "/"}


def catalogue_key(booked_uid: str) -> tuple[str, str]:
    """Return the run uid and the key in its metadata for the uid under which a converter's frames are booked.

    >>> catalogue_key("0f3e"), catalogue_key("0f3e#esp")
    (('0f3e', 'conversion'), ('0f3e', 'conversion_esp'))
    """
    run_uid, _, name = booked_uid.partition("#")
    return run_uid, f"conversion_{name}" if name else "conversion"


def booked_uids(start: Mapping[str, Any]) -> list[str]:
    """Return the uids under which the frames of a run are booked, one for each of its converters.

    >>> booked_uids({"uid": "0f3e", "conversion": {"device": "a/b/1"}, "conversion_esp": {"device": "a/b/2"}})
    ['0f3e', '0f3e#esp']
    """
    further = [
        name.removeprefix("conversion_")
        for name, facts in start.items()
        if name.startswith("conversion_") and isinstance(facts, Mapping) and "device" in facts
    ]
    return [start["uid"], *(f"{start['uid']}#{name}" for name in further)]


def write_statistics(run: Any, statistics: RunStatistics) -> None:
    """Write the final statistics to the metadata of `run` (its Tiled client), under their `catalogue_key`.

    They replace earlier numbers without a new metadata revision.
    """
    _, key = catalogue_key(statistics.run_uid)
    fields = statistics.model_dump(mode="json", exclude={"run_uid", "run_counts"})
    run.update_metadata({key: fields}, drop_revision=True)
