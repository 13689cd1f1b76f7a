"""The callback that turns run documents into conversion requests: spooled at once, sent in the background."""

import hashlib
import logging
import platform
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from petif_bluesky.delivery.dark_finder import DarkFinder, FindDarks
from petif_bluesky.delivery.document_errors import DocumentErrorLog
from petif_bluesky.delivery.run_book import RunBook
from petif_bluesky.delivery.run_groups import RunGroups
from petif_bluesky.delivery.sender import Sender
from petif_bluesky.documents.bookings import Booking, booking_in
from petif_bluesky.documents.darks import wants_run_dark
from petif_bluesky.documents.document_counts import DocumentCounts
from petif_bluesky.documents.frame import Frame
from petif_bluesky.documents.groups import combine_of
from petif_bluesky.documents.run_darks import named_dark_run
from petif_bluesky.documents.run_recipe import part_of_recipe, recipe_of_run, refusable_recipe
from petif_bluesky.documents.selection import FrameSelection
from petif_bluesky.frames import FrameRouter
from petif_bluesky.metadata import MetadataSelection
from petif_bluesky.spool import Spool, SpooledRequest, SpoolError
from tango_server.client.client import Client
from tango_server.home import state_folder
from tango_server.messages import FrameReport
from tango_server.recipe import Recipe
from tango_server.recipe.map import Map

_log = logging.getLogger(__name__)

_KEPT_RUNS = 100
_callbacks: "weakref.WeakValueDictionary[Path, ConversionCallback]" = weakref.WeakValueDictionary()
"""The callbacks of this process that are not closed, by spool file."""


class Submitting(Protocol):
    """What the callback needs from a converter: a classic or async device, or a `RemoteSession` outside a session."""

    client: Client
    runs: RunBook
    name: str


def default_spool_path(address: str, name: str = "") -> Path:
    """Return the default spool file for the server at `address`; with `name`, that of a further converter.

    Each host has its own file: home folders may be on a network file system, where SQLite files must not be shared.
    """
    digest = hashlib.sha256(f"{platform.node()} {address} {name}".rstrip().encode()).hexdigest()[:12]
    return state_folder() / f"spool-{digest}.sqlite"


class ConversionCallback:
    """Submits every frame that a run's detectors write, as the documents arrive.

    Use it as `RE.subscribe(ConversionCallback(converter))`. It never raises into a plan and never waits for the server:
    each call costs one insert into an SQLite file. The recipe is the one in the start document
    (`start.conversion.recipe`, or `start.conversion_NAME.recipe` for a further converter of that name), or the server's
    if the run has none. With a recipe that cannot be used, the frames of the run fail with the reason. With a recipe
    whose dark is that of the run, each frame is sent with the files of its dark (see `documents.dark_book`), and dark
    frames are not sent. With a recipe that combines frames, each is sent with its group (see `documents.groups`).

    Parameters
    ----------
    converter: the device that represents the server
    spool: the file that holds requests until the server accepts them; by default one per server and converter in the
        user's state folder
    frames: which frames to convert, by default every image of a run once
    metadata: which document keys to send with each frame
    find_darks: returns the darks of a run in a catalogue, by uid, for runs of darks that this session has not seen;
        called in a thread

    Raises
    ------
    SpoolError
        if the spool cannot be opened, or is that of another converter, so that this is noticed before a run starts.

    """

    def __init__(
        self,
        converter: Submitting,
        *,
        spool: str | Path | None = None,
        frames: FrameSelection | None = None,
        metadata: MetadataSelection | None = None,
        find_darks: FindDarks | None = None,
    ) -> None:
        self.converter = converter
        self._book = converter.runs
        self._spool = Spool(_own_path(converter, spool))
        _callbacks[self._spool.path.absolute()] = self
        self._book.callbacks.add(self)
        self.darks = DarkFinder(self._spool.path, release=self._put, hold_back=self._book.hold_back)
        self.darks.find = find_darks
        self._groups = RunGroups(self._spool.put_all, self._book.note_open_groups)
        self._router = FrameRouter(
            self._enqueue,
            note=_warn,
            frames=frames,
            metadata=metadata,
            recipe_of=self._recipe_of,
            take_dark=self.darks.add,
        )
        self._counts = DocumentCounts()
        self._bookings: dict[str, Booking] = {}
        self._errors = DocumentErrorLog()
        self._sender = Sender(self._spool, converter.client, set_aside=self._set_aside, book=self._book)

    @property
    def waiting(self) -> int:
        """Number of frames in the spool that the server has not accepted yet."""
        return self._spool.frames

    @property
    def spool_path(self) -> Path:
        """The file that holds requests until the server accepts them."""
        return self._spool.path

    def __call__(self, name: str, document: Mapping[str, Any]) -> None:
        """Process one document."""
        run_uid = ""
        try:
            run_uid = self._router.run_of(name, document)
            self._follow(name, document)
        except Exception as error:  # noqa: BLE001 - boundary to the RunEngine: an error here must not end a plan
            self._errors.record(run_uid, name, error)
        try:
            self._count(run_uid, name, document)
        except Exception as error:  # noqa: BLE001 - as above; such a document does not follow the event model
            self._errors.record(run_uid, name, error)
        if name == "stop" and run_uid:
            self.darks.when_released(booked := self._booked(run_uid), partial(self._end, booked))
            self._errors.end(run_uid)
            self._counts.forget(run_uid)
            self._bookings.pop(run_uid, None)

    def release(self, booked: str) -> None:
        """Submit the frames of a run that wait for readings, which will not come any more; never raises.

        `booked` is the run uid of this converter's frames.
        """
        run_uid = Booking.of(booked).run
        try:
            self._router.release(run_uid)
        except Exception as error:  # noqa: BLE001 - boundary to the RunEngine: an error here must not end a plan
            self._errors.record(run_uid, "stop", error)
        self.darks.when_released(booked, partial(self._close_groups, booked))
        self._book.read(booked, self._counts.of(run_uid), self._unfinished(run_uid))

    def fill_map(self, booked: str, reports: Sequence[FrameReport]) -> int:
        """Request placeholders for points of a run's map whose frames failed; return how many; never raises."""
        try:
            return self._note_all(self._groups.fill(booked, reports))
        except Exception as error:  # noqa: BLE001 - boundary to the RunEngine: an error here must not end a plan
            self._errors.record(Booking.of(booked).run, "stop", error)
        return 0

    def close(self, timeout: float = 5.0) -> None:
        """Stop sending; requests that the server has not accepted stay in the spool for the next session."""
        self.darks.close()
        self._sender.close(timeout)
        self._book.callbacks.discard(self)
        self._spool.close()
        _callbacks.pop(self._spool.path.absolute(), None)

    def _follow(self, name: str, document: Mapping[str, Any]) -> None:
        try:
            if name == "start":
                self._begin(document)
        finally:
            self._router(name, document)

    def _begin(self, start: Mapping[str, Any]) -> None:
        booking = booking_in(start, self.converter.name, self.converter.client.address)
        self._bookings[booking.run] = booking
        if len(self._bookings) > _KEPT_RUNS:  # runs that never stopped
            del self._bookings[next(iter(self._bookings))]
        self._errors.begin()
        self._book.announce(booking.run_uid)
        self._spool.announce(booking.run_uid)
        self._sender.wake()

    def _booked(self, run_uid: str) -> str:
        """Return the run uid of this converter's frames."""
        booking = self._bookings.get(run_uid)
        return booking.run_uid if booking else run_uid

    def _recipe_of(self, start: Mapping[str, Any]) -> Any:
        """Return the recipe for the frames of a run; one that cannot be used is kept for the server to refuse them."""
        booking = self._bookings.get(start["uid"]) or Booking(start["uid"])
        try:
            recipe = recipe_of_run(start.get(booking.key)).recipe
        except ValueError as error:
            _log.error("run %s: none of its frames can be converted: %s", booking.run_uid, error)
            return refusable_recipe(start.get(booking.key))
        recipe = recipe or self._server_recipe()
        if recipe is None:
            return None
        if recipe.corrections is not None and recipe.corrections.wants_run_dark:
            self.darks.look_up(named_dark_run(start))
        return recipe.model_dump(mode="json")

    def _server_recipe(self) -> Recipe | None:
        """Return the recipe of the server if it needs the documents of a run: for its dark, groups or map."""
        poller = getattr(self.converter, "poller", None)  # a `RemoteSession` has none
        recipe = poller.state.recipe if poller else None
        needs_run = wants_run_dark(recipe) or combine_of(recipe) or part_of_recipe(recipe, "map", Map)
        return Recipe.parse(recipe) if needs_run else None

    def _count(self, run_uid: str, name: str, document: Mapping[str, Any]) -> None:
        self._counts(name, document)
        if run_uid:
            self._book.read(self._booked(run_uid), self._counts.of(run_uid), self._unfinished(run_uid))
            self._sender.wake_for_counts()

    def _unfinished(self, run_uid: str) -> int:
        """Return how many documents of a run wait for others, or could not be processed."""
        return self._router.waiting(run_uid) + self._errors.count(run_uid)

    def _enqueue(self, frames: list[Frame]) -> None:
        self._put(self.darks.with_darks([replace(frame, run_uid=self._booked(frame.run_uid)) for frame in frames]))

    def _put(self, frames: list[Frame]) -> None:
        self._note_all(self._groups.put(frames))

    def _note_all(self, requests: Sequence[dict[str, Any]]) -> int:
        """Note requests that were spooled; return how many."""
        for request in requests:
            self._book.add(request["run_uid"], request["key"], request["stream"])
        self._sender.wake()
        return len(requests)

    def _close_groups(self, booked: str) -> None:
        try:
            self._note_all(self._groups.close(booked))
        except Exception as error:  # noqa: BLE001 - boundary to the RunEngine: an error here must not end a plan
            self._errors.record(Booking.of(booked).run, "stop", error)
        self._sender.wake()

    def _end(self, booked: str) -> None:
        self._close_groups(booked)
        self._groups.forget(booked)
        self._book.close(booked)

    def _set_aside(self, entry: SpooledRequest) -> None:
        """Runs in the sender's thread."""
        if entry.request is not None:
            self._book.set_aside(entry.run_uid, entry.key, entry.request.get("stream"))


def _own_path(converter: Submitting, spool: str | Path | None) -> Path:
    """Return the spool file of a converter's callback; two converters of a process never share one.

    The sender of one would send the frames of the other to the wrong server.
    """
    path = Path(spool) if spool else default_spool_path(converter.client.address)
    other = _callbacks.get(path.absolute())
    if other is None or other.converter is converter:
        return path
    if spool is None:
        return default_spool_path(converter.client.address, converter.name)
    raise SpoolError(
        f"{path}: this spool is used by converter {other.converter.name!r}, so {converter.name!r} cannot use it. "
        "Choose another file with spool=PATH."
    )


def _warn(text: str) -> None:
    _log.warning("%s", text)
