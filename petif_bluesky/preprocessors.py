"""The conversion's place in a run: its recipe in the start document, its statistics in a stream before the end."""

from collections.abc import Callable, Generator, Mapping
from functools import wraps
from typing import Any, TypeVar

from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.utils import Msg

from petif_bluesky.converter import PETifConverter
from tango_server.recipe import InPlace, Recipe

Result = TypeVar("Result")
Plan = Generator[Msg, Any, Result]

CONVERSION = "conversion"


def conversion_wrapper(
    plan: Plan[Result], converter: PETifConverter, *, recipe: Recipe | None = None, stream: str = CONVERSION
) -> Plan[Result]:
    """Put the recipe into the start document of every run of `plan`, and its statistics into `stream` before it closes.

    The start document gets `conversion` = {recipe, recipe_source, device, server_version}. A recipe that the plan's own
    metadata bring (`conversion.recipe`) goes before `recipe`; without any, the server's own holds (None if the server
    was not reached yet). Before a run closes, the plan waits until each of its frames has a report, for at most the
    converter's `drain_timeout`.

    Raises
    ------
    ValueError
        if the recipe converts in place without `allow_in_place`: the run's documents would not fit the files.

    """
    _require_new_files(recipe)
    return _wrapped(plan, converter, recipe, stream)


def _require_new_files(recipe: Recipe | None) -> None:
    if recipe is not None and isinstance(recipe.output, InPlace) and not recipe.output.allow_in_place:
        raise ValueError(
            "recipe.output: found in_place; expected new files, because the run's documents describe the raw files. "
            'If this is really meant, say so: output={"mode": "in_place", "allow_in_place": True}.'
        )


def _wrapped(plan: Plan[Result], converter: PETifConverter, recipe: Recipe | None, stream: str) -> Plan[Result]:
    uids: dict[Any, str] = {}
    bundling: set[Any] = set()

    def process(msg: Msg) -> tuple[Plan[Any] | None, None]:
        if msg.command == "create":
            bundling.add(msg.run)
        elif msg.command in {"save", "drop"}:
            bundling.discard(msg.run)
        if msg.command == "open_run" and not _is_wrapped(msg):
            return opened(msg), None
        if msg.command == "close_run" and msg.run in uids:
            return closing(msg, uids.pop(msg.run)), None
        return None, None

    def opened(msg: Msg) -> Plan[str]:
        facts = _start_facts(converter, recipe, msg.kwargs.get(CONVERSION) or {})
        uid: str = yield msg._replace(kwargs={**msg.kwargs, CONVERSION: facts})
        uids[msg.run] = converter.current_run = uid
        return uid

    def closing(msg: Msg, uid: str) -> Plan[Any]:
        def flush() -> Plan[None]:
            converter.current_run = uid
            if msg.run in bundling:  # the plan has failed within an event, and that is what people should read
                yield from bps.drop()
            yield from bps.checkpoint()  # or a pause and resume would take the last point again
            yield from bps.trigger_and_read([converter], name=stream)

        yield from flush() if msg.run is None else bpp.set_run_key_wrapper(flush(), msg.run)
        return (yield msg)

    return (yield from bpp.plan_mutator(plan, process))


def conversion_decorator(
    converter: PETifConverter, *, recipe: Recipe | None = None, stream: str = CONVERSION
) -> Callable[[Callable[..., Plan[Result]]], Callable[..., Plan[Result]]]:
    """Return `conversion_wrapper` as a decorator of plans."""
    _require_new_files(recipe)

    def decorate(plan_function: Callable[..., Plan[Result]]) -> Callable[..., Plan[Result]]:
        @wraps(plan_function)
        def decorated(*args: Any, **kwargs: Any) -> Plan[Result]:
            plan = plan_function(*args, **kwargs)
            return (yield from conversion_wrapper(plan, converter, recipe=recipe, stream=stream))

        return decorated

    return decorate


class ConversionPreprocessor:
    """`conversion_wrapper` for every plan: `RE.preprocessors.append(ConversionPreprocessor(converter, recipe=...))`."""

    def __init__(self, converter: PETifConverter, *, recipe: Recipe | None = None, stream: str = CONVERSION) -> None:
        _require_new_files(recipe)
        self.converter = converter
        self.recipe = recipe
        self.stream = stream

    def __call__(self, plan: Plan[Result]) -> Plan[Result]:
        """Wrap a plan."""
        return conversion_wrapper(plan, self.converter, recipe=self.recipe, stream=self.stream)


class _StartFacts(dict[str, Any]):
    """The facts that a wrapper has put into a start document; its type tells outer wrappers to leave the run alone."""


def _is_wrapped(open_run: Msg) -> bool:
    return isinstance(open_run.kwargs.get(CONVERSION), _StartFacts)


def _start_facts(converter: PETifConverter, recipe: Recipe | None, from_plan: Any) -> dict[str, Any]:
    if not isinstance(from_plan, Mapping):
        raise ValueError(  # noqa: TRY004 - a value that a user has written
            f"{CONVERSION} in the plan's metadata: found {from_plan!r}; expected a dict, as {{'recipe': {{...}}}}. "
            "Name other metadata otherwise."
        )
    own = from_plan.get("recipe") or recipe
    if isinstance(own, Recipe):
        own = own.model_dump(mode="json")
    server = converter.link.server
    return _StartFacts(
        {
            **from_plan,
            "recipe": own or server.recipe,
            "recipe_source": "run" if own else "server",
            "device": converter.link.address,
            "server_version": server.version,
        }
    )
