"""A client for a Tiled catalogue that may not be running yet."""

from typing import Any


class CatalogueAt:
    """The runs of a catalogue; connects on first use, and tries again after a failure.

    Parameters
    ----------
    uri: such as `http://tiled.example:8000`; the key is read from the environment variable TILED_API_KEY, as in
        Tiled's own client

    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client: Any = None

    def __getitem__(self, run_uid: str) -> Any:
        """Return the client of a run; raises the errors of Tiled's client, KeyError if there is no such run."""
        return self.client[run_uid]

    @property
    def client(self) -> Any:
        """The client of the catalogue; raises the errors of Tiled's client if it cannot be reached."""
        if self._client is None:
            self._client = self._connected()
        return self._client

    def _connected(self) -> Any:
        from tiled.client import from_context  # noqa: PLC0415 - takes 2 s, only needed with a catalogue
        from tiled.client.context import Context  # noqa: PLC0415

        context, path = Context.from_any_uri(self._uri)
        authentication = context.server_info.authentication
        known = context.authenticated or (bool(authentication.providers) and context.use_cached_tokens())
        if authentication.required and not known:  # otherwise Tiled's client would prompt for a login
            context.close()
            raise PermissionError(f"{self._uri}: no API key. Set TILED_API_KEY and start again.")
        try:
            return from_context(context, node_path_parts=path)
        except Exception:
            context.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.context.close()
            self._client = None


def reached(catalogue: CatalogueAt, uri: str) -> Any:
    """Return the client of a catalogue that must be there now.

    Raises
    ------
    ConnectionError, PermissionError
        if it cannot be reached, or needs a key.

    """
    try:
        return catalogue.client
    except PermissionError:
        raise
    except Exception as error:
        place = uri.partition("?")[0]  # the rest may contain a key
        raise ConnectionError(
            f"{place}: cannot reach the catalogue: {error}. Start Tiled, check the address, or attach without tiled."
        ) from error
