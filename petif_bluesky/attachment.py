"""Attach a converter to a RunEngine: everything that a session needs, in one line."""

import atexit
import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from weakref import WeakKeyDictionary

from bluesky import RunEngine

from petif_bluesky.callback import ConversionCallback
from petif_bluesky.converter_base import ConverterBase
from petif_bluesky.documents.masters_in_use import dark_alarms, masters_in_use
from petif_bluesky.documents.run_recipe import session_recipe
from petif_bluesky.documents.selection import FrameSelection
from petif_bluesky.metadata import MetadataSelection
from petif_bluesky.plan_stubs.run_wrapper import Wait
from petif_bluesky.plan_stubs.start_facts import refuse_shared_output
from petif_bluesky.preprocessors import AnyRecipe, ConversionPreprocessor
from petif_bluesky.tiled.lazy_client import CatalogueAt, reached
from petif_bluesky.tiled.raw_frames import darks_of_run, find_run
from petif_bluesky.tiled.session_writer import has_writer, writer_for
from petif_bluesky.tiled.statistics import CatalogueStatistics
from tango_server.client.client import LinkError
from tango_server.recipe import Recipe
from tango_server.recipe.corrections import Corrections

_log = logging.getLogger(__name__)

_INTERVAL = 0.1  # s between checks in `wait`
_attached: "WeakKeyDictionary[RunEngine, list[Attached]]" = WeakKeyDictionary()


def attach(
    RE: RunEngine,  # noqa: N803 - bluesky's name
    converter: ConverterBase | str,
    *,
    recipe: AnyRecipe = None,
    tiled: Any = None,
    wait: Wait = "run",
    frames: FrameSelection | None = None,
    metadata: MetadataSelection | None = None,
    spool: str | Path | None = None,
) -> "Attached":
    """Convert the frames of all runs of a RunEngine, and record the conversion in the runs and in the catalogue.

    Subscribes a `ConversionCallback`, appends a `ConversionPreprocessor`, and with a catalogue subscribes a
    `TiledWriter` that registers each frame by its own name, and `CatalogueStatistics`. If the session has a
    `TiledWriter` already, that one is used. Otherwise it works in a thread: the RunEngine waits for it only after small
    runs (see `BackgroundWriter`), and runs that the catalogue does not take are kept in the user's state folder. The
    attachment ends with `close`, at the end of a `with` block, or when Python ends.

    Attaching the same converter again returns the same object. Several converters may be attached, each with its own
    recipe; see `ConversionPreprocessor` for the names of their streams.

    Parameters
    ----------
    RE: the RunEngine
    converter: the device, classic or async, or the address of the server, for a classic device
    recipe: recipe for runs that have none of their own, in any form that `Recipe.parse` accepts; by default that of the
        converter, or else the server's
    tiled: the catalogue for the runs, as a Tiled client or URI
    wait: when to wait for the frames: before a run closes ("run"), after each point as well ("point"), or not at all
        (None; runs then close with `drained: false` unless all is done)
    frames: which frames to convert, by default every image once, and which are dark
    metadata: which document keys to send with each frame
    spool: the file that holds requests until the server accepts them, by default in the user's state folder; runs that
        the catalogue does not accept are kept beside it

    Raises
    ------
    ValueError
        if the recipe is invalid, the device has no name, two converters would write the same files or have the same
        name, or the converter is already attached with other options.
    SpoolError
        if the spool cannot be used.
    ConnectionError, PermissionError
        if the catalogue at a URI cannot be reached, or needs a key.

    """
    others = _attached.setdefault(RE, [])
    options = _Options(session_recipe(recipe), tiled, wait, frames, metadata, None if spool is None else Path(spool))
    for other in others:
        if converter is other.converter or converter == other.address:
            options.require_equal(other.options, other.converter.name)
            return other
    attached = Attached(RE, converter, options, [other.converter.name for other in others])
    try:
        for other in others:
            _require_other_output(other, attached)
    except ValueError:
        attached.close()
        raise
    others.append(attached)
    return attached


@dataclass(frozen=True, slots=True)
class _Options:
    recipe: Recipe | None
    tiled: Any
    wait: Wait
    frames: FrameSelection | None
    metadata: MetadataSelection | None
    spool: Path | None

    def require_equal(self, given: "_Options", name: str) -> None:
        """Raise `ValueError` if an option was given that differs from that of an earlier call."""
        for option in self.__slots__:
            value, before = getattr(self, option), getattr(given, option)
            if value not in (None, "run") and value is not before and value != before:
                raise ValueError(
                    f"{name}: already attached with {option}={before!r}, not {value!r}. "
                    "Close the attachment first: attached.close()."
                )


class Attached:
    """A converter attached to a RunEngine; made by `attach`.

    Attributes
    ----------
    converter: the device
    options: what `attach` was called with
    writer, connection: what closes the writer for the catalogue, and its connection, if this attachment has made them

    """

    def __init__(
        self, run_engine: RunEngine, converter: ConverterBase | str, options: _Options, others: list[str]
    ) -> None:
        self.options = options
        self._catalogue: CatalogueStatistics | None = None
        self.writer, self.connection = ExitStack(), ExitStack()
        self._writes = ""
        self._complete: set[str] = set()
        with ExitStack() as stack:
            if isinstance(converter, str):
                converter = _classic_device(converter, others, stack)
            self.converter = converter
            if not converter.name:
                raise ValueError("converter: the device has no name. Pass name=NAME, or create it in init_devices().")
            if self.converter.name in others:
                raise ValueError(
                    f"{self.converter.name}: another converter with this name is attached. Give each its own name, or "
                    "close the other attachment first."
                )
            self._callback = ConversionCallback(
                self.converter, spool=options.spool, frames=options.frames, metadata=options.metadata
            )
            stack.callback(self._callback.close)
            preprocessor = ConversionPreprocessor(self.converter, recipe=options.recipe, wait=options.wait)
            if options.tiled is not None:
                client = self._subscribe_writer(run_engine, options.tiled)
                self._callback.darks.find = lambda uid: darks_of_run(find_run(client, uid), options.frames)
                self._catalogue = CatalogueStatistics(client, self.converter)
                stack.callback(self._catalogue.close)
                _subscribe(run_engine, self._catalogue, stack)
            _subscribe(run_engine, self._callback, stack)
            run_engine.preprocessors.append(preprocessor)
            stack.callback(_remove, run_engine.preprocessors, preprocessor)
            self._attached = _attached.setdefault(run_engine, [])
            self._stack = stack.pop_all()
        atexit.register(self.close)

    @property
    def address(self) -> str:
        """The address of the server."""
        return self.converter.client.address

    @property
    def waiting(self) -> int:
        """Number of frames that the server has not accepted yet; they are on disk."""
        return self._callback.waiting

    @property
    def alarms(self) -> list[str]:
        """What needs attention: darks that are too old for the recipe."""
        corrections = self._corrections()
        return dark_alarms(corrections, self._callback.darks.newest(), time.time()) if corrections else []

    @property
    def status(self) -> str:
        """The attachment, the dark, flat and mask in use for each detector, and the alarms, in lines."""
        corrections, darks = self._corrections(), self._callback.darks.newest()
        masters = masters_in_use(corrections, darks, time.time()) if corrections else []
        return "\n".join([self._summary(), *masters, *(f"ALARM: {alarm}" for alarm in self.alarms)])

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every frame so far has a report, and the catalogue has the final statistics of each run.

        Returns whether they have; False after `timeout` seconds. It blocks: use it between runs, not in plans.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = threading.Event()
        while self.waiting or not self._are_complete():
            if deadline is not None and time.monotonic() >= deadline:
                return False
            pause.wait(_INTERVAL)
        left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        return self._catalogue is None or self._catalogue.wait(left)

    def close(self) -> None:
        """Detach the converter; requests that the server has not accepted stay in the spool for the next session."""
        atexit.unregister(self.close)
        if self in self._attached:
            self._attached.remove(self)
        heir = next((other for other in self._attached if other.options.tiled is not None), None)
        if heir is not None:
            heir.writer.enter_context(self.writer.pop_all())
            heir.connection.enter_context(self.connection.pop_all())
        self.writer.close()  # first, so that the statistics find the last runs in the catalogue
        self._stack.close()
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{'; ALARM: '.join([self._summary(), *self.alarms])}>"

    def _summary(self) -> str:
        recipe = "the server's recipe" if self.options.recipe is None else f"recipe {self.options.recipe.hash}"
        waiting = f"{self.waiting} frames waiting"
        return f"{self.converter.name} attached: {self.address}, {recipe}, {waiting}{self._writes}"

    def _corrections(self) -> Corrections | None:
        recipe = _recipe_of(self)
        return recipe.corrections if recipe else None

    def _subscribe_writer(self, run_engine: RunEngine, tiled: Any) -> Any:
        """Subscribe a writer for the catalogue, unless there is one; return the client."""
        if isinstance(tiled, str):
            catalogue = CatalogueAt(tiled)
            self.connection.callback(catalogue.close)
            tiled = reached(catalogue, tiled)
        if has_writer(run_engine):
            self._writes = ", the session's own TiledWriter writes the runs"
            _log.info("The TiledWriter of this session is used: attach subscribes no other one.")
        else:
            self._writes = f", a TiledWriter writes the runs to {tiled.uri}"
            writer = writer_for(tiled, self._callback.spool_path.parent)
            self.writer.callback(writer.close)
            _subscribe(run_engine, writer, self.writer)
        return tiled

    def _are_complete(self) -> bool:
        """Return whether the server has a report for each frame of the runs of this session."""
        client, book = self.converter.client, self.converter.runs
        for run_uid in book.runs():
            if run_uid in self._complete:
                continue
            try:
                statistics = client.run_statistics(run_uid)
            except LinkError:
                return False
            if statistics.pending or statistics.submitted < book.submitted(run_uid) or book.held_back(run_uid):
                return False
            if book.is_closed(run_uid):
                self._complete.add(run_uid)
        return True


def _classic_device(address: str, others: list[str], stack: ExitStack) -> ConverterBase:
    """Return a device for an address; `stack` destroys it."""
    from petif_bluesky.converter import PETifConverter  # noqa: PLC0415 - an async session needs no classic ophyd

    converter = PETifConverter(address, name=_free_name(others))
    stack.callback(converter.destroy)
    return converter


def _free_name(others: list[str]) -> str:
    """Return the name of a converter that was given by its address."""
    names = ("converter" if number == 1 else f"converter{number}" for number in range(1, len(others) + 2))
    return next(name for name in names if name not in others)


def _require_other_output(other: Attached, attached: Attached) -> None:
    recipes = {each.converter.name: _recipe_of(each) for each in (other, attached)}
    known = {name: recipe for name, recipe in recipes.items() if recipe is not None}
    if len(known) == len(recipes):
        refuse_shared_output(known)


def _recipe_of(attached: Attached) -> Recipe | None:
    """Return the recipe for runs without one of their own, None if it is the server's and not known yet."""
    own = attached.options.recipe or attached.converter.recipe.chosen
    server = attached.converter.poller.state.recipe
    return own or (Recipe.parse(server) if server else None)


def _subscribe(run_engine: RunEngine, subscriber: Callable[[str, Any], Any], stack: ExitStack) -> None:
    token = run_engine.subscribe(subscriber)
    stack.callback(run_engine.unsubscribe, token)


def _remove(preprocessors: list[Any], preprocessor: ConversionPreprocessor) -> None:
    if preprocessor in preprocessors:
        preprocessors.remove(preprocessor)
