"""Write the tables of a run's maps in a thread: the folder may be on slow storage."""

import logging
import threading

from petif_bluesky.maps.table import write_tables
from petif_bluesky.signals.run_reports import RunReports
from tango_server.recipe import Recipe

_log = logging.getLogger(__name__)


def write_tables_of(reports: RunReports, recipe: str) -> None:
    """Write `map.csv` for each map of a run, without waiting for it; `recipe` is that of the run, as JSON."""
    if recipe and Recipe.model_validate_json(recipe).makes_maps:
        threading.Thread(target=_write, args=(reports,), name="petif-map-table", daemon=True).start()


def _write(reports: RunReports) -> None:
    try:
        write_tables(reports)
    except Exception as error:  # noqa: BLE001 - petif map writes it later
        _log.warning(
            "run %s: cannot write the table of its map: %s. For it: petif map %s", reports.run_uid, error,
            reports.run_uid,
        )  # fmt: skip
