"""A Tiled catalogue that need not be up yet."""

from typing import Any


class CatalogueAt:
    """The runs of the catalogue at an address; connects when it is first asked for one, and tries anew until it can.

    Parameters
    ----------
    uri: as `http://tiled.example:8000`; the key comes from the environment variable TILED_API_KEY, as Tiled's own
        client does it

    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client: Any = None

    def __getitem__(self, run_uid: str) -> Any:
        """Return the client of a run; raise what Tiled's client raises, KeyError for a run that is not there."""
        if self._client is None:
            from tiled.client import from_uri  # noqa: PLC0415 - takes 2 s, and only hosts with a catalogue need it

            self._client = from_uri(self._uri)
        return self._client[run_uid]

    def close(self) -> None:
        """End the connection."""
        if self._client is not None:
            self._client.context.close()
            self._client = None
