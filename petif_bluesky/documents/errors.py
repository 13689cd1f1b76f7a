"""What can be wrong with run documents."""

from collections.abc import Mapping
from typing import Any


class DocumentError(ValueError):
    """A run document can't be followed; the parts of the message are attributes."""

    def __init__(self, kind: str, uid: str, found: str, expected: str, advice: str) -> None:
        super().__init__(kind, uid, found, expected, advice)
        self.kind = kind
        self.uid = uid
        self.found = found
        self.expected = expected
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.kind} document {self.uid}: {self.found}; expected {self.expected}. {self.advice}"


class MalformedDocumentError(DocumentError):
    """A document lacks what the event model asks for, or has something else in its place."""


class UnknownDescriptorError(DocumentError, LookupError):
    """A document belongs to a descriptor that was never seen, or to a run that is over."""


class TemplateError(DocumentError):
    """The template of file names can't be followed."""


def uid_of(document: Any) -> str:
    """Return how people find a document again."""
    if not isinstance(document, Mapping):
        return f"of type {type(document).__name__}"
    named = (document[key] for key in ("uid", "datum_id", "run_start", "resource", "descriptor") if document.get(key))
    return str(next(named, "without a uid"))[:100]


class FramesNotFoundError(LookupError):
    """A run, a folder or a list of files has not the frames that were asked for."""
