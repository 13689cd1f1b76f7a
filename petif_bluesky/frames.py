"""Find the frames of runs in their documents, without file access.

Frames can be announced by resource and datum documents, by stream resources and stream datums, and by strings with the
name of a file; see `petif_bluesky.documents`. Each frame of a run is converted once: a dark frame that appears in
several events, or a file named both by an image key and by a string, is one frame.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from typing import Any

from event_model import DocumentNames, DocumentRouter, unpack_datum_page, unpack_event_page

from petif_bluesky.documents.assets import Assets, Files
from petif_bluesky.documents.bookings import Booking
from petif_bluesky.documents.darks import Dark
from petif_bluesky.documents.descriptors import Descriptor
from petif_bluesky.documents.errors import Attempts, DocumentError, MalformedDocumentError, UnknownDescriptorError
from petif_bluesky.documents.file_series import PassedOver
from petif_bluesky.documents.frame import Frame
from petif_bluesky.documents.resources import (
    files_of_resource,
    files_of_stream_resource,
    point_of_datum,
    span_of_stream_datum,
)
from petif_bluesky.documents.run import Run
from petif_bluesky.documents.selection import FrameSelection
from petif_bluesky.metadata import MetadataSelection

__all__ = ["Frame", "FrameRouter", "FrameSelection", "recipe_in"]

Document = Mapping[str, Any]

_MOST_OPEN_RUNS = 100
_FOLLOWED = DocumentNames.__members__.keys() - {"bulk_events", "bulk_datum"}


def recipe_in(start: Document) -> Any:
    """Return the recipe in a start document, or None to use the server's recipe."""
    conversion = start.get("conversion") or {}
    if isinstance(conversion, Mapping):
        return conversion.get("recipe")
    raise MalformedDocumentError(
        "start",
        start,
        f"conversion is {conversion!r}, not a dict with a recipe",
        "The server's recipe is used. Use another name for other metadata.",
    )


class FrameRouter(DocumentRouter):
    """Routes documents to their runs, which may be interleaved, and passes on the frames that each document completes.

    A run is forgotten when it stops, or when a hundred other runs have sent documents since its last one.

    Parameters
    ----------
    take: called with the frames of a document, if any, before an error in that document is raised
    note: called with what is not converted and why, once per run and text: images in other formats, lost frames
    frames: which frames to convert
    metadata: which document keys to send with each frame
    recipe_of: extracts the recipe from a start document
    take_dark: called with each dark of a run, before the frames of its document

    """

    def __init__(
        self,
        take: Callable[[list[Frame]], None],
        *,
        note: Callable[[str], None] = lambda _text: None,
        frames: FrameSelection | None = None,
        metadata: MetadataSelection | None = None,
        recipe_of: Callable[[Document], Any] = recipe_in,
        take_dark: Callable[[Dark], object] = lambda _dark: None,
    ) -> None:
        super().__init__()
        self._take = take
        self._note = note
        self._selection = frames or FrameSelection()
        self._metadata = metadata or MetadataSelection()
        self._recipe_of = recipe_of
        self._take_dark = take_dark
        self._orders = count(1)
        self._assets = Assets()
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._descriptors: dict[str, Run] = {}
        """The run of each descriptor."""
        self._found: list[Frame] = []
        self._attempts = Attempts()

    def __call__(self, name: str, document: Any, validate: bool = False) -> tuple[str, Any]:  # noqa: FBT001, FBT002 - event-model's
        """Process one document; an error in one part of it does not affect the rest.

        Raises
        ------
        DocumentError
            if the document does not follow the event model, or refers to one that was never seen.
        UnknownRecipeError
            if it has a frame of a run whose start document was not seen.

        """
        if name in _FOLLOWED:
            with self._attempts:
                super().__call__(name, document, validate)
            self._pass_on(name, document)
        return name, document

    def _pass_on(self, name: str, document: Any) -> None:
        found = self._found.copy()
        self._found.clear()
        try:
            self._raise_first(name, document)
        finally:
            if found:
                self._take(found)

    def run_of(self, name: str, document: Document) -> str:
        """Return the uid of the run that a document belongs to, "" if unknown."""
        if name == "start":
            return str(document["uid"])
        run = self._descriptors.get(document.get("descriptor", ""))
        return run.uid if run else str(document.get("run_start", ""))

    def waiting(self, run_uid: str) -> int:
        """Return how many frames of a run wait for further documents."""
        run = self._runs.get(run_uid)
        return run.waiting if run else 0

    def release(self, run_uid: str) -> None:
        """Pass on the frames of a run that wait for readings only: the run is about to stop."""
        if run := self._runs.get(run_uid):
            run.release()
            self._pass_on("stop", {"run_start": run_uid})

    def start(self, doc: Document) -> None:
        """Begin a run."""
        recipe = None
        with self._attempts:
            recipe = self._recipe_of(doc)
        self._run(doc["uid"]).begin(doc, recipe)

    def descriptor(self, doc: Document) -> None:
        """Begin a stream, and its run if the start document was missed."""
        run = self._run(doc["run_start"])
        self._descriptors[run.describe(doc).uid] = run

    def resource(self, doc: Document) -> None:
        """Store the files of a resource."""
        self._announce(doc, lambda: files_of_resource(doc, self._selection.sequences))

    def stream_resource(self, doc: Document) -> None:
        """Store the files of a stream resource."""
        run = self._runs.get(doc.get("run_start", ""))
        if run is None or run.may_use(doc["data_key"]):
            self._announce(doc, lambda: files_of_stream_resource(doc))

    def datum(self, doc: Document) -> None:
        """Store a datum."""
        datum_id = doc["datum_id"]
        self._assets.add_datum(datum_id, doc["resource"], point_of_datum(doc))
        for run in self._runs.values():
            run.datum_came(datum_id)

    def datum_page(self, doc: Document) -> None:
        """Store the datums of a page."""
        self._each(self.datum, unpack_datum_page(doc))

    def event(self, doc: Document) -> None:
        """Find the frames of an event."""
        run, descriptor = self._descriptor_of("event", doc)
        run.event(descriptor, doc)

    def event_page(self, doc: Document) -> None:
        """Find the frames of the events of a page."""
        self._each(self.event, unpack_event_page(doc))

    def stream_datum(self, doc: Document) -> None:
        """Find the frames of a stream datum."""
        run, descriptor = self._descriptor_of("stream_datum", doc)
        run.stream_datum(descriptor, doc["stream_resource"], *span_of_stream_datum(doc))

    def stop(self, doc: Document) -> None:
        """End a run."""
        self._end(doc["run_start"])

    def _each(self, take: Callable[[Document], None], documents: Iterable[Document]) -> None:
        for document in documents:
            with self._attempts:
                take(document)

    def _announce(self, doc: Document, parse: Callable[[], Files]) -> None:
        files: Files = PassedOver("the resource document cannot be used", doc.get("data_key", ""))
        with self._attempts:
            files = parse()
        self._assets.add_resource(doc["uid"], files, doc.get("run_start"))
        for run in self._runs.values():
            run.resource_came(doc["uid"])

    def _descriptor_of(self, kind: str, doc: Document) -> tuple[Run, Descriptor]:
        run = self._descriptors.get(doc["descriptor"])
        if run is None:
            raise UnknownDescriptorError(
                kind,
                doc,
                f"its descriptor {doc['descriptor']!r} is not one of an open run",
                "Subscribe before the run starts: frames of runs already in progress are not converted.",
            )
        self._runs.move_to_end(run.uid)
        return run, run.descriptors[doc["descriptor"]]

    def _run(self, uid: str) -> Run:
        run = self._runs.get(uid) or Run(
            Booking(uid).run,  # it refuses a uid that is no text
            self._selection,
            self._metadata,
            self._assets,
            give=self._found.append,
            give_dark=self._take_dark,
            next_order=self._orders.__next__,
            note=self._note,
            attempts=self._attempts,
        )
        self._runs[uid] = run
        self._runs.move_to_end(uid)
        while len(self._runs) > _MOST_OPEN_RUNS:
            oldest = next(iter(self._runs))
            self._end(oldest)
            self._note(f"run {oldest}: no stop document; its further frames will not be converted")
        return run

    def _end(self, uid: str) -> None:
        run = self._runs.pop(uid, None)
        if run is not None:
            for descriptor in run.descriptors:
                self._descriptors.pop(descriptor, None)
            run.stop()
            self._assets.end_run(uid, self._runs)

    def _raise_first(self, name: str, document: Any) -> None:
        try:
            self._attempts.raise_first()
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            if isinstance(error, DocumentError):
                raise
            raise MalformedDocumentError(name, document, f"{type(error).__name__}: {error}") from error
