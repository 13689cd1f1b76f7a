"""Run documents: kept as they come from a RunEngine, or composed by event_model."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import event_model

from petif_bluesky.documents.frame import Frame
from petif_bluesky.frames import FrameRouter

TIFFS = "multipart/related;type=image/tiff"

Document = dict[str, Any]
Subscriber = Callable[[str, Document], object]

IMAGE: Document = {"source": "test", "dtype": "array", "shape": [1, 48, 64], "external": "FILESTORE:"}
IN_STREAM: Document = {**IMAGE, "external": "STREAM:"}
NAME: Document = {"source": "test", "dtype": "string", "shape": []}
NUMBER: Document = {"source": "test", "dtype": "number", "shape": []}


class Recorder:
    """A subscriber that keeps documents, and copies of them as they were when they came."""

    def __init__(self) -> None:
        self.documents: list[tuple[str, Document]] = []
        self._copies: list[tuple[str, Document]] = []

    def __call__(self, name: str, document: Document) -> None:
        self.documents.append((name, document))
        self._copies.append((name, copy.deepcopy(document)))

    def of(self, kind: str) -> list[Document]:
        return [document for name, document in self.documents if name == kind]

    def stream(self, name: str, run_uid: str | None = None) -> list[Document]:
        """The events of one stream, of all runs or of one; those of pages are unpacked."""
        descriptors = {
            document["uid"]
            for document in self.of("descriptor")
            if document["name"] == name and run_uid in {None, document["run_start"]}
        }
        return [event for event in self.events() if event["descriptor"] in descriptors]

    def events(self) -> list[Document]:
        """All events, in the order in which they came; those of pages are unpacked."""
        found: list[Document] = []
        for name, document in self.documents:
            if name == "event_page":
                found += event_model.unpack_event_page(document)
            elif name == "event":
                found.append(document)
        return found

    def check(self) -> None:
        """Nobody has changed a document, and all follow the event model."""
        assert self.documents == self._copies
        for name, document in self.documents:
            event_model.schema_validators[event_model.DocumentNames[name]].validate(document)


class ComposedRun:
    """One run whose documents go to a subscriber as they are composed; `answers` has what it returned for events."""

    def __init__(self, subscriber: Subscriber, **metadata: Any) -> None:
        self._subscriber = subscriber
        self._run = event_model.compose_run(metadata=metadata)
        self._streams: dict[str, Any] = {}
        self.uid: str = self._run.start_doc["uid"]
        self.recorder = Recorder()
        self._emit("start", self._run.start_doc)

    def stream(self, name: str = "primary", **objects: dict[str, Document]) -> None:
        """Describe a stream: for each object its keys, named without the object's name."""
        keys = {
            f"{owner}_{key}": {**described, "object_name": owner}
            for owner, described_keys in objects.items()
            for key, described in described_keys.items()
        }
        self._streams[name] = self._run.compose_descriptor(name=name, data_keys=keys)
        self._emit("descriptor", self._streams[name].descriptor_doc)

    def resource(
        self,
        *,
        spec: str = "AD_TIFF",
        root: str = "/data",
        path: str = "raw/sample",
        windows: bool = False,
        **kwargs: Any,
    ) -> Callable[..., str]:
        """Compose a resource; return a function that composes a datum of it and returns the datum's id."""
        settings = {"template": "%s%s-%5.5d.tif", "filename": "sample", "frame_per_point": 1, **kwargs}
        bundle = self._run.compose_resource(
            spec=spec,
            root=root,
            resource_path=path,
            resource_kwargs=settings,
            path_semantics="windows" if windows else "posix",
        )
        self._emit("resource", bundle.resource_doc)

        def datum(point: int) -> str:
            document = bundle.compose_datum(datum_kwargs={"point_number": point})
            self._emit("datum", document)
            datum_id: str = document["datum_id"]
            return datum_id

        return datum

    def stream_resource(
        self, data_key: str, uri: str, template: str, *, mimetype: str = TIFFS, announce: bool = True, **parameters: Any
    ) -> Callable[..., Any]:
        """Compose a stream resource; return a function that composes a stream datum and returns the answer to it."""
        settings = {"chunk_shape": [1, 48, 64], "template": template, **parameters}
        bundle = self._run.compose_stream_resource(mimetype=mimetype, uri=uri, data_key=data_key, parameters=settings)
        if announce:
            self._emit("stream_resource", bundle.stream_resource_doc)

        def datum(first: int, stop: int, *, stream: str = "primary", seq_num: int = 1) -> Any:
            document = bundle.compose_stream_datum(
                indices={"start": first, "stop": stop},
                seq_nums={"start": seq_num, "stop": seq_num + stop - first},
                descriptor=self._streams[stream].descriptor_doc,
            )
            return self._emit("stream_datum", document)

        return datum

    def page(self, kind: str, documents: Sequence[Document]) -> Any:
        """Send events or datums as one page."""
        pack = {"event": event_model.pack_event_page, "datum": event_model.pack_datum_page}[kind]
        return self._emit(f"{kind}_page", pack(*documents))

    def event(self, stream: str = "primary", **data: Any) -> Any:
        """Compose an event; return what the subscriber answers."""
        document = self._streams[stream].compose_event(
            data=data,
            timestamps=dict.fromkeys(data, 1.7e9),
            filled={key: False for key in data if key.endswith("image")},
            validate=False,
        )
        return self._emit("event", document)

    def stop(self) -> None:
        self._emit("stop", self._run.compose_stop())

    def _emit(self, name: str, document: Document) -> Any:
        self.recorder(name, document)
        return self._subscriber(name, document)


class FrameFinder:
    """Takes documents in, and returns the frames that each of them completes."""

    def __init__(self, selection: Any = None, **settings: Any) -> None:
        self._found: list[Frame] = []
        self.notes: list[str] = []
        self.router = FrameRouter(self._found.extend, note=self.notes.append, frames=selection, **settings)

    def feed(self, name: str, document: Any) -> list[Frame]:
        self._found.clear()
        self.router(name, document)
        return list(self._found)

    def take_notes(self) -> list[str]:
        """The notes since the last call."""
        notes = list(self.notes)
        self.notes.clear()
        return notes

    def knows_nothing(self) -> bool:
        """Whether no run, descriptor or datum is remembered."""
        router = self.router
        return not (router._runs or router._descriptors or router._assets._datums)


def replay(documents: Sequence[tuple[str, Document]], subscriber: Subscriber) -> list[Any]:
    """Send documents again, to somebody else; return the answers."""
    return [subscriber(name, document) for name, document in documents]
