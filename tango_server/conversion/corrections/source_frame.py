"""A page of an open source as the frame that is corrected."""

from collections.abc import Mapping

from tango_server.conversion.corrections.exposure import exposure_of
from tango_server.conversion.corrections.preparation import Frame
from tango_server.conversion.esperanto.mask import mask_of
from tango_server.conversion.files.roots import ANYWHERE, NO_FIELDS, Roots
from tango_server.conversion.sidecar import read_sidecar
from tango_server.conversion.tiff.reader import Source, pixel_type
from tango_server.conversion.tiff.structure import Page
from tango_server.recipe import Recipe
from tango_server.recipe.corrections import DARK_FACTS, DarkFacts


def frame_of(
    source: Source, page: Page, recipe: Recipe, roots: Roots = ANYWHERE, fields: Mapping[str, object] = NO_FIELDS
) -> Frame:
    """Return a page of `source` as a frame, with its exposure from the sidecar and the mask of an ESPERANTO recipe."""
    return Frame(
        source.path,
        page.shape,
        pixel_type(page),
        exposure_of(source.structure, read_sidecar(source.path, roots)),
        source.orientation(page),
        mask=None if recipe.esperanto is None else mask_of(recipe.esperanto, fields),
        dark_facts=DarkFacts.of(fields.get(DARK_FACTS)),
    )
