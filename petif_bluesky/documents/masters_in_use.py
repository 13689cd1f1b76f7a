"""Describe the dark, flat and mask that a session uses now. Pure."""

from collections.abc import Sequence

from petif_bluesky.documents.dark_book import too_old
from petif_bluesky.documents.darks import Dark, spelled
from petif_bluesky.documents.uris import name_of
from tango_server.recipe.corrections import Corrections


def masters_in_use(corrections: Corrections, darks: Sequence[Dark], now: float) -> list[str]:
    """Return a line for each detector with its dark, flat and mask.

    Parameters
    ----------
    corrections: those of the recipe
    darks: the newest known dark of each detector
    now: Unix time

    """
    others = [f"{kind} {name_of(path)}" for kind, path in corrections.masters if kind != "dark"]
    if not corrections.wants_run_dark:
        fixed = [f"dark {', '.join(map(name_of, corrections.darks))}"] if corrections.darks else []
        return [f"all detectors: {', '.join(fixed + others)}"] if fixed or others else []
    if not darks:
        return [f"all detectors: {', '.join(['no dark is known yet', *others])}"]
    return [f"{dark.settings.detector}: {', '.join([_described(dark, now), *others])}" for dark in darks]


def dark_alarms(corrections: Corrections, darks: Sequence[Dark], now: float) -> list[str]:
    """Return which of the newest known darks are too old for the recipe."""
    limit = corrections.dark_max_age
    if limit is None or not corrections.wants_run_dark:
        return []
    return [too_old(dark.settings.detector, now - dark.time, limit) for dark in darks if now - dark.time > limit]


def _described(dark: Dark, now: float) -> str:
    exposure = dark.settings.exposure_time
    seconds = "" if exposure is None else f"{exposure:g} s, "
    more = f" and {len(dark.paths) - 1} more" if len(dark.paths) > 1 else ""
    return f"dark {name_of(dark.paths[-1])}{more} ({seconds}{spelled(max(now - dark.time, 0.0))} old)"
