"""What can be wrong with run documents."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

_ADVICE = "Its frames will not be converted; correct the device or program that emits it."


class DocumentError(ValueError):
    """A run document can't be followed."""

    def __init__(self, kind: str, document: Any, why: str, advice: str = _ADVICE) -> None:
        super().__init__(f"{kind} document {_uid_of(document)}: {why}. {advice}")


class MalformedDocumentError(DocumentError):
    """A document lacks what the event model asks for, or has something else in its place."""


class UnknownDescriptorError(DocumentError, LookupError):
    """A document belongs to a descriptor that was never seen, or to a run that is over."""


class UnknownRecipeError(LookupError):
    """The start document of a run was not seen, and the recipe is in it."""


class TemplateError(DocumentError):
    """The template of file names can't be followed."""


class Attempts:
    """Steps of which a failure must not cost the others: `with attempts: ...`, and in the end `raise_first`."""

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
    """Return how people find a document again."""
    if not isinstance(document, Mapping):
        return f"of type {type(document).__name__}"
    named = (document[key] for key in ("uid", "datum_id", "run_start", "resource", "descriptor") if document.get(key))
    return str(next(named, "without a uid"))[:100]


class FramesNotFoundError(LookupError):
    """A run, a folder or a list of files has not the frames that were asked for."""
