"""Register each detector frame in a catalogue by its own file name, instead of a template for all.

Templates fail with gaps, with numbering that does not start at 0, with `-00001` names (used by QXRD if a file exists)
and, in areaDetector's style, because of a missing slash after the folder. Tiled would open the wrong file, or none.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import uuid4

from petif_bluesky.documents.frame import Frame
from petif_bluesky.documents.literal_uri import literal_uri
from petif_bluesky.documents.mime_types import MANY_TIFFS
from petif_bluesky.documents.uris import is_other_image
from petif_bluesky.frames import FrameRouter

_log = logging.getLogger(__name__)

Document = Mapping[str, Any]


class LiteralNames:
    """Wraps a `TiledWriter`: `RE.subscribe(LiteralNames(TiledWriter(client)))`.

    If an event has one TIFF file per image key, announced by resource and datum documents, the writer gets a stream
    resource with the name of that file, as reported by the detector if it does so, and an event without the datum id.
    All other documents are passed on unchanged. No document is modified.

    Parameters
    ----------
    subscriber: called with documents, like a subscriber of the RunEngine

    """

    def __init__(self, subscriber: Callable[[str, Any], Any]) -> None:
        self.subscriber = subscriber
        self._found: list[Frame] = []
        # No recipe: an ESPERANTO recipe would hold frames back.
        self._router = FrameRouter(self._found.extend, recipe_of=lambda _start: None)
        self._single: dict[str, set[str]] = {}
        """By descriptor, the image keys with one file per event."""
        self._descriptors: dict[str, list[str]] = {}
        """Descriptors by run."""
        self._counts: dict[tuple[str, str], int] = {}
        """Number of stream resources so far, by descriptor and image key."""

    def __call__(self, name: str, document: Document) -> None:
        """Pass a document on, preceded by the frames if it is an event."""
        match name:
            case "descriptor":
                self._describe(document)
            case "event_page" | "datum_page":
                for single in _unpacked(name, document):
                    self(name.removesuffix("_page"), single)
                return
        frames = self._frames(name, document)
        if name == "event":
            document = self._literal(document, frames)
        self.subscriber(name, document)
        if name == "stop":
            self._forget(document["run_start"])

    def _frames(self, name: str, document: Document) -> list[Frame]:
        self._found.clear()
        try:
            self._router(name, document)
        except Exception:  # noqa: BLE001 - boundary to the RunEngine: the writer gets the document in any case
            _log.exception("Cannot process a %r document; it is passed to the catalogue unchanged", name)
        return list(self._found)

    def _describe(self, descriptor: Document) -> None:
        self._descriptors.setdefault(descriptor["run_start"], []).append(descriptor["uid"])
        self._single[descriptor["uid"]] = {
            key
            for key, described in descriptor["data_keys"].items()
            if described.get("external") and described["external"] != "STREAM:" and _is_one_frame(described)
        }

    def _literal(self, event: Document, frames: list[Frame]) -> Document:
        """Pass on stream resources and datums for the frames of an event; return the event without its datum ids."""
        single = self._single.get(event["descriptor"], set()).intersection(event["data"])
        count = Counter(frame.data_key for frame in frames)
        tiffs = [frame for frame in frames if frame.frame is None and not is_other_image(frame.path)]
        ours = [frame for frame in tiffs if frame.data_key in single and count[frame.data_key] == 1]
        moved = {frame.data_key for frame in ours if self._hand_on(event, frame)}
        if not moved:
            return event
        parts = {
            part: {key: value for key, value in event[part].items() if key not in moved}
            for part in ("data", "timestamps", "filled")
            if part in event
        }
        return {**event, **parts}

    def _hand_on(self, event: Document, frame: Frame) -> bool:
        try:
            uri, template = literal_uri(frame.path)
        except ValueError as error:
            _log.warning("Cannot register a file by name; the catalogue gets the template: %s", error)
            return False
        descriptor, seq_num = event["descriptor"], event["seq_num"]
        number = self._counts.get((descriptor, frame.data_key), 0)
        self._counts[descriptor, frame.data_key] = number + 1
        uid = str(uuid4())
        resource = {
            "uid": uid,
            "run_start": frame.run_uid,
            "data_key": frame.data_key,
            "mimetype": MANY_TIFFS,
            "uri": uri,
            "parameters": {"chunk_shape": [1], "template": template},
        }
        datum = {
            "uid": f"{uid}/0",
            "stream_resource": uid,
            "descriptor": descriptor,
            "indices": {"start": number, "stop": number + 1},
            "seq_nums": {"start": seq_num, "stop": seq_num + 1},
        }
        self.subscriber("stream_resource", resource)
        self.subscriber("stream_datum", datum)
        return True

    def _forget(self, run_uid: str) -> None:
        gone = set(self._descriptors.pop(run_uid, []))
        for uid in gone:
            self._single.pop(uid, None)
        self._counts = {key: count for key, count in self._counts.items() if key[0] not in gone}


def _is_one_frame(described: Document) -> bool:
    shape = described.get("shape") or []
    return described["dtype"] == "array" and (len(shape) == 2 or (len(shape) == 3 and shape[0] == 1))  # noqa: PLR2004


def _unpacked(name: str, page: Document) -> Iterator[Document]:
    import event_model  # noqa: PLC0415 - pages are rare

    unpack = event_model.unpack_event_page if name == "event_page" else event_model.unpack_datum_page
    yield from unpack(page)
