"""Patch runs in a Tiled catalogue: resource paths for its writer, and final statistics in the metadata."""

from collections.abc import Mapping
from typing import Any

from petif_bluesky.documents.bookings import Booking
from petif_bluesky.documents.resources import has_folder_and_template
from tango_server.messages import RunStatistics


def with_trailing_slash(resource: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resource document whose path ends with a slash.

    areaDetector's template contains the slash between folder and file name, but TiledWriter joins the two as they are,
    and would register `.../folderfile.tif`. Use as `TiledWriter(client, patches={"resource": with_trailing_slash})`.
    """
    if not has_folder_and_template(resource):
        return dict(resource)
    return {**resource, "resource_path": resource["resource_path"].rstrip("/") + "/"}


def write_statistics(run: Any, statistics: RunStatistics) -> None:
    """Write the final statistics to the metadata of `run` (its Tiled client), under the key of its converter.

    They replace earlier numbers without a new metadata revision.
    """
    key = Booking.of(statistics.run_uid).key
    fields = statistics.model_dump(mode="json", exclude={"run_uid", "run_counts"})
    run.update_metadata({key: fields}, drop_revision=True)
