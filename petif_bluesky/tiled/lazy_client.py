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
            self._client = self._connected()
        return self._client[run_uid]

    def _connected(self) -> Any:
        from tiled.client import from_context  # noqa: PLC0415 - takes 2 s, and only hosts with a catalogue need it
        from tiled.client.context import Context  # noqa: PLC0415

        context, path = Context.from_any_uri(self._uri)
        authentication = context.server_info.authentication
        known = context.authenticated or (bool(authentication.providers) and context.use_cached_tokens())
        if authentication.required and not known:  # else Tiled's client would ask a person, where there is none
            context.close()
            raise PermissionError(
                f"{self._uri}: found no key for it; expected one in TILED_API_KEY. Set it, start again."
            )
        return from_context(context, node_path_parts=path)

    def close(self) -> None:
        """End the connection."""
        if self._client is not None:
            self._client.context.close()
            self._client = None
