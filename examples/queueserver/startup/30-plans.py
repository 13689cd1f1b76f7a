"""The plans for the queue. No future annotations here: the RE Manager reads the types at runtime."""

from typing import Any

from bluesky.plans import count, scan
from bluesky.utils import MsgGenerator, plan

from petif_bluesky import plans
from petif_bluesky.plans import convert_files, convert_folder

__all__ = ["convert_files", "convert_folder", "count", "reprocess_run", "scan"]


@plan
def reprocess_run(run: str, recipe: dict[str, Any] | str, timeout: float = 600.0) -> MsgGenerator[str]:
    """Convert the frames of a catalogued run with another recipe, in a new run.

    Parameters
    ----------
    run
        uid of the run
    recipe
        fields of a recipe, optionally on top of a "preset", or the name of a preset
    timeout
        maximum time for the conversion in seconds

    """
    return (yield from plans.reprocess_run(converter, run, recipe=recipe, catalogue=catalogue, timeout=timeout))
