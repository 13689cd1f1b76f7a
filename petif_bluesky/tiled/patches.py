"""A run in a Tiled catalogue: what its writer needs, and the conversion's final statistics in the run's metadata."""

from collections.abc import Mapping
from typing import Any

from petif_bluesky.documents.resources import has_tiff_template
from tango_server.messages import RunStatistics


def with_trailing_slash(resource: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resource document whose path ends with a slash.

    areaDetector's template puts the slash between folder and file name itself; TiledWriter joins the two as they
    stand, and would register `.../folderfile.tif`. To be used as
    `TiledWriter(client, patches={"resource": with_trailing_slash})`.
    """
    if not has_tiff_template(resource):
        return dict(resource)
    return {**resource, "resource_path": resource["resource_path"].rstrip("/") + "/"}


def write_statistics(run: Any, statistics: RunStatistics) -> None:
    """Put the final statistics into the metadata of `run` (a Tiled client of it), under `conversion`.

    Without a revision of its own: the numbers replace earlier ones.
    """
    fields = statistics.model_dump(mode="json", exclude={"run_uid"})
    run.update_metadata({"conversion": fields}, drop_revision=True)
