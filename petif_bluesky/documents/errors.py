"""Errors in run documents."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

_ADVICE = "Its frames will not be converted. Fix the device or program that emits it."


class DocumentError(ValueError):
    """A run document cannot be used."""

    def __init__(self, kind: str, document: Any, why: str, advice: str = _ADVICE) -> None:
        super().__init__(f"{kind} document {_uid_of(document)}: {why}. {advice}")


class MalformedDocumentError(DocumentError):
    """A document violates the event model: something is missing or has the wrong type."""


class UnknownDescriptorError(DocumentError, LookupError):
    """A document refers to a descriptor that was never seen, or to a run that has ended."""


class UnknownRecipeError(LookupError):
    """The start document, which has the recipe, was not seen."""


class TemplateError(DocumentError):
    """The file name template cannot be used."""


class Attempts:
    """Runs steps that may fail independently: `with attempts: ...` for each, `raise_first` at the end."""

    def __init__(self) -> None:
        self._first: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if isinstance(error, Exception):
            self._first = self._first or error
            return True
        return False

    def raise_first(self) -> None:
        """Raise the first error since the last call, if there was one."""
        first, self._first = self._first, None
        if first is not None:
            raise first


def _uid_of(document: Any) -> str:
    """Return the uid, or another id, by which a document can be found."""
    if not isinstance(document, Mapping):
        return f"of type {type(document).__name__}"
    named = (document[key] for key in ("uid", "datum_id", "run_start", "resource", "descriptor") if document.get(key))
    return str(next(named, "without a uid"))[:100]


class FramesNotFoundError(LookupError):
    """The requested frames are not in the run, folder or list of files."""
