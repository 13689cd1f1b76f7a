"""Record the conversion in a run: the recipe in the start document, the statistics in a stream before the end."""

from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any

from petif_bluesky.converter_base import ConverterBase
from petif_bluesky.documents.bookings import CONVERSION
from petif_bluesky.documents.run_recipe import session_recipe
from petif_bluesky.plan_stubs.run_wrapper import Plan, Result, RunWrapper, Wait
from petif_bluesky.plan_stubs.start_facts import start_facts
from tango_server.recipe import Recipe

AnyRecipe = Recipe | Mapping[str, Any] | str | None
"""Any form that `Recipe.parse` accepts."""


def conversion_wrapper(
    plan: Plan[Result],
    converter: ConverterBase,
    *,
    recipe: AnyRecipe = None,
    stream: str = CONVERSION,
    wait: Wait = "run",
) -> Plan[Result]:
    """Add the recipe to the start document of every run of `plan`, and the results of the conversion before it closes.

    Each frame gets an event in the stream `converted`, with the converted image as external data, or in `unconverted`
    if there is no image. `stream` gets one event with the statistics of the run.

    The start document gets `conversion` = {recipe, recipe_source, device, server_version}. The recipe is the first that
    is given: in the plan's metadata (`conversion.recipe`), as `recipe`, on the converter (`converter.configure`), or
    the server's own (None if the server has not been reached yet).

    Before a run closes, the plan waits until every frame has a report, for at most the converter's `drain_timeout`.
    With `wait="point"` it also waits after each event with frames, and emits their events at once, so that the plan can
    use the converted frames (`converter.reports`).

    Raises
    ------
    ValueError
        if the recipe is invalid, or converts in place without `allow_in_place`: the files would no longer match the
        documents of the run.

    """
    facts = partial(start_facts, converter, session_recipe(recipe))
    return RunWrapper(converter, facts, stream=stream, wait=wait).wrapped(plan)


def conversion_decorator(
    converter: ConverterBase,
    *,
    recipe: AnyRecipe = None,
    stream: str = CONVERSION,
    wait: Wait = "run",
) -> Callable[[Callable[..., Plan[Result]]], Callable[..., Plan[Result]]]:
    """Return `conversion_wrapper` as a decorator for plans."""
    chosen = session_recipe(recipe)

    def decorate(plan_function: Callable[..., Plan[Result]]) -> Callable[..., Plan[Result]]:
        @wraps(plan_function)
        def decorated(*args: Any, **kwargs: Any) -> Plan[Result]:
            plan = plan_function(*args, **kwargs)
            return (yield from conversion_wrapper(plan, converter, recipe=chosen, stream=stream, wait=wait))

        return decorated

    return decorate


class ConversionPreprocessor:
    """`conversion_wrapper` for every plan: `RE.preprocessors.append(ConversionPreprocessor(converter, recipe=...))`."""

    def __init__(
        self,
        converter: ConverterBase,
        *,
        recipe: AnyRecipe = None,
        stream: str = CONVERSION,
        wait: Wait = "run",
    ) -> None:
        self.converter = converter
        self.recipe = session_recipe(recipe)
        self.stream = stream
        self.wait: Wait = wait

    def __call__(self, plan: Plan[Result]) -> Plan[Result]:
        """Wrap a plan."""
        return conversion_wrapper(plan, self.converter, recipe=self.recipe, stream=self.stream, wait=self.wait)
