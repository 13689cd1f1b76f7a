"""A dark, what determines the dark of a frame, and what is sent with the frame."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from petif_bluesky.documents.detector_settings import DetectorSettings
from petif_bluesky.documents.run_recipe import part_of_recipe
from tango_server.recipe.corrections import DARK_FACTS, Corrections, DarkFacts


@dataclass(frozen=True, slots=True)
class Dark:
    """The images of one detector in one dark event.

    `paths` is empty if the documents name no files. `time`: of the reading, in Unix s, also if it was repeated in a
    later run. `order`: number of its document among those of the session, 0 if it is from an earlier one.
    `of_dark_run`: whether all frames of its run are dark. `outdated`: whether the settings may have changed since.
    `unfit`: its first frame that cannot be a dark, because it is in a file of several frames; `paths` is empty then.
    """

    run_uid: str
    settings: DetectorSettings
    paths: tuple[str, ...]
    time: float
    order: int = 0
    of_dark_run: bool = False
    outdated: bool = False
    unfit: str = ""


@dataclass(frozen=True, slots=True)
class Light:
    """What determines the dark of a frame: `order` is that of its first document, `time` None without an event."""

    run_uid: str
    settings: DetectorSettings
    time: float | None = None
    order: int = 0
    dark_run: str = ""
    """The run of darks named by the start document."""
    outdated: bool = False
    """Whether its settings may have changed since."""


@dataclass(frozen=True, slots=True)
class FoundDark:
    """The files of the dark of a frame, none if there is no dark, and what is known about it."""

    paths: tuple[str, ...]
    facts: DarkFacts

    def applied(self, recipe: Any, metadata: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Return recipe (JSON) and metadata for the request of the frame."""
        corrections = corrections_of(recipe)
        if corrections is None or not corrections.wants_run_dark:
            return recipe, dict(metadata)
        if self.paths:
            recipe = {**recipe, "corrections": corrections.with_dark(self.paths).model_dump(mode="json")}
        return recipe, {**metadata, DARK_FACTS: self.facts.model_dump(mode="json", exclude_defaults=True)}


def corrections_of(recipe: Any) -> Corrections | None:
    """Return the corrections of a recipe in JSON; None if there are none, or the recipe is invalid."""
    return part_of_recipe(recipe, "corrections", Corrections)


def wants_run_dark(recipe: Any) -> bool:
    """Return whether a recipe in JSON wants the dark of the run."""
    corrections = corrections_of(recipe)
    return corrections is not None and corrections.wants_run_dark


def spelled(seconds: float) -> str:
    """Return a duration in words.

    >>> [spelled(each) for each in (45, 600, 3600, 10_800, 500_000)]
    ['45 s', '10 min', '1 h', '3 h', '5.8 d']
    """
    for unit, length, longest in (("s", 1.0, 120.0), ("min", 60.0, 3600.0), ("h", 3600.0, 172_800.0)):
        if seconds < longest:
            return f"{round(seconds / length, 1):g} {unit}"
    return f"{seconds / 86_400:.1f} d"
