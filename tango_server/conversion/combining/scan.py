"""The header of one ESPERANTO frame that was combined from several: its angles are those of all of them."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from tango_server.conversion.combining.members import Checked
from tango_server.conversion.errors import GroupUnfitError
from tango_server.conversion.esperanto.experiment import Experiment, experiment_of
from tango_server.conversion.image.orientation import Orientation
from tango_server.recipe import Recipe
from tango_server.recipe.combine import Combine

_LARGEST_GAP = 0.02
"""Of the range of one frame; encoders are read at every one."""
_SMALLEST_GAP = 1e-3  # degrees


def experiment_of_all(members: Sequence[Checked], recipe: Recipe, combine: Combine) -> Experiment | None:
    """Return the header of a combination: first start, last end; a sum adds exposures and monitors. None for a TIFF.

    Raises
    ------
    GroupUnfitError
        if the angles of two frames are not contiguous.
    ExperimentError
        if a frame lacks a value.
    """
    if recipe.esperanto is None:
        return None
    found = []
    for each in members:
        turned = each.source.images[0].stored.then(Orientation.of(recipe))
        path = each.member.location.file
        found.append(experiment_of(path, recipe.esperanto, each.member.fields, each.header, turned))
    _require_contiguous(members, found)
    first = found[0]
    adds = combine.method == "sum"
    return replace(
        first,
        end=found[-1].end,
        exposure=sum(each.exposure for each in found) if adds else first.exposure,
        monitor=sum(each.monitor for each in found) if adds else first.monitor,
    )


def _require_contiguous(members: Sequence[Checked], found: Sequence[Experiment]) -> None:
    for number, (before, after) in enumerate(pairwise(found), 1):
        for name, end, start, begun in zip(before.end._fields, before.end, after.start, before.start, strict=True):
            if abs(start - end) > max(_SMALLEST_GAP, _LARGEST_GAP * abs(end - begun)):
                raise GroupUnfitError(
                    members[number].member.location.file,
                    f"cannot combine it with {members[number - 1].member.location}: that ends at {name} = {end:g} deg, "
                    f"this begins at {start:g} deg, and an ESPERANTO frame needs contiguous angles",
                    "Combine successive frames of one rotation, or convert to TIFF.",
                )
