"""From run documents to the files of frames. Pure: no file is looked at.

Every way in which a run tells of TIFF files is followed: resource and datum documents, stream resources and stream
datums, and strings with the name of a file; see `petif_bluesky.documents`. Each file is taken once in a run, by its
path: a dark frame that is shown again, or a name that an image key and a string tell both, is one frame.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import event_model

from petif_bluesky.documents.assets import Assets, Files
from petif_bluesky.documents.descriptors import Stream, stream_of
from petif_bluesky.documents.errors import (
    DocumentError,
    MalformedDocumentError,
    TemplateError,
    UnknownDescriptorError,
    uid_of,
)
from petif_bluesky.documents.file_series import PassedOver
from petif_bluesky.documents.frame import Frame
from petif_bluesky.documents.resources import point_of_datum, series_of_resource
from petif_bluesky.documents.run_frames import RunFrames
from petif_bluesky.documents.selection import OWN_STREAMS, FrameSelection
from petif_bluesky.documents.stream_resources import files_of_stream_resource, span_of_stream_datum

__all__ = [
    "OWN_STREAMS",
    "DocumentError",
    "Frame",
    "FrameFinder",
    "FrameSelection",
    "MalformedDocumentError",
    "TemplateError",
    "UnknownDescriptorError",
]

Document = Mapping[str, Any]

_MOST_OPEN_RUNS = 100
_MOST_NOTES = 1000


class FrameFinder:
    """Takes documents in, gives frames out. Runs may be interleaved.

    What a run needed is forgotten when it stops, or when a hundred others have shown documents since its last one.
    `take_notes` tells what is not converted, and why.
    """

    def __init__(self, selection: FrameSelection | None = None) -> None:
        self._selection = selection or FrameSelection()
        self._assets = Assets()
        self._runs: OrderedDict[str, RunFrames] = OrderedDict()
        self._streams: dict[str, Stream] = {}
        self._of_abandoned: list[Frame] = []
        self._notes: deque[str] = deque(maxlen=_MOST_NOTES)

    def feed(self, name: str, document: Document) -> list[Frame]:
        """Return the frames that this document completes, or that are complete by now.

        Raises
        ------
        DocumentError
            if the document does not follow the event model, or what it builds on was never seen.

        """
        try:
            frames = self._feed(name, document)
        except DocumentError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise MalformedDocumentError(
                name,
                uid_of(document),
                f"{type(error).__name__}: {error}",
                "what the event model asks for",
                "Its frames will not be converted; correct the device or program that emits it.",
            ) from error
        abandoned, self._of_abandoned = self._of_abandoned, []
        return abandoned + frames

    def take_notes(self) -> list[str]:
        """Return what is to be told since the last call, each once for a run: images in other formats, lost frames."""
        notes = list(self._notes)
        self._notes.clear()
        return notes

    def _feed(self, name: str, document: Document) -> list[Frame]:
        takers: dict[str, Callable[[Document], list[Frame]]] = {
            "start": self._start,
            "descriptor": self._descriptor,
            "resource": self._resource,
            "stream_resource": self._stream_resource,
            "datum": self._datum,
            "datum_page": lambda page: self._each(self._datum, event_model.unpack_datum_page(page)),
            "event": self._event,
            "event_page": lambda page: self._each(self._event, event_model.unpack_event_page(page)),
            "stream_datum": self._stream_datum,
            "stop": lambda stop: self._stop(stop["run_start"]),
        }
        return takers[name](document) if name in takers else []

    def _start(self, document: Document) -> list[Frame]:
        self._run(document["uid"])
        return []

    def _descriptor(self, document: Document) -> list[Frame]:
        stream = stream_of(document, self._selection)
        self._run(stream.run_uid).describe(stream, document["data_keys"])
        self._streams[stream.uid] = stream
        return []

    def _resource(self, document: Document) -> list[Frame]:
        return self._files(document, lambda: series_of_resource(document, self._selection.sequences))

    def _stream_resource(self, document: Document) -> list[Frame]:
        run = self._runs.get(document.get("run_start", ""))
        if run is not None and run.is_ours(document["data_key"]):
            return []
        return self._files(document, lambda: files_of_stream_resource(document))

    def _each(self, take: Callable[[Document], list[Frame]], documents: Iterable[Document]) -> list[Frame]:
        """Take the documents of a page; one that is wrong does not cost the others."""
        frames: list[Frame] = []
        for document in documents:
            try:
                frames += take(document)
            except (DocumentError, KeyError, TypeError, ValueError, AttributeError) as error:
                self._notes.append(f"a document of a page can't be followed: {type(error).__name__}: {error}")
        return frames

    def _files(self, document: Document, parse: Callable[[], Files]) -> list[Frame]:
        uid, run_uid = document["uid"], document.get("run_start")
        try:
            files = parse()
        except Exception:
            self._assets.add_resource(uid, PassedOver("the resource document can't be followed"), run_uid)
            raise
        self._assets.add_resource(uid, files, run_uid)
        return [frame for run in self._runs.values() for frame in run.resource_came(uid)]

    def _datum(self, document: Document) -> list[Frame]:
        datum_id = document["datum_id"]
        self._assets.add_datum(datum_id, document["resource"], point_of_datum(document))
        return [frame for run in self._runs.values() for frame in run.datum_came(datum_id)]

    def _event(self, document: Document) -> list[Frame]:
        stream = self._stream("event", document)
        return self._run(stream.run_uid).event(stream, document)

    def _stream_datum(self, document: Document) -> list[Frame]:
        stream = self._stream("stream_datum", document)
        span = span_of_stream_datum(document)
        return self._run(stream.run_uid).stream_datum(stream, document["stream_resource"], span)

    def _stream(self, kind: str, document: Document) -> Stream:
        stream = self._streams.get(document["descriptor"])
        if stream is None:
            raise UnknownDescriptorError(
                kind,
                uid_of(document),
                f"the descriptor {document['descriptor']!r}, which is unknown",
                "one that came before, of a run that is going on",
                "Subscribe before runs begin: frames of runs that have begun already are not converted.",
            )
        return stream

    def _run(self, uid: str) -> RunFrames:
        """Return a run; one whose start was missed begins with its first document."""
        if uid not in self._runs:
            self._runs[uid] = RunFrames(uid, self._selection, self._assets, self._notes.append)
        self._runs.move_to_end(uid)
        while len(self._runs) > _MOST_OPEN_RUNS:
            oldest = next(iter(self._runs))
            self._of_abandoned += self._stop(oldest)
            self._notes.append(f"run {oldest}: never stopped; what comes of it from now on is not converted")
        return self._runs[uid]

    def _stop(self, uid: str) -> list[Frame]:
        run = self._runs.pop(uid, None)
        if run is None:
            return []
        for descriptor in [key for key, stream in self._streams.items() if stream.run_uid == uid]:
            del self._streams[descriptor]
        return run.stop()
