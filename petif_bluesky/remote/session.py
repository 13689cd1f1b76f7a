"""The callback without a bluesky session."""

from petif_bluesky.delivery.run_book import RunBook
from tango_server.client.client import Client


class RemoteSession:
    """Takes the place of a converter for the callback, where there is no session and no ophyd Device.

    The server passes on what was read and submitted to the session, which waits for it.

    Parameters
    ----------
    client: calls to the server
    name: name of the converter in the session, if it is not the first one there

    """

    def __init__(self, client: Client, name: str = "") -> None:
        self.client = client
        self.name = name
        self.runs = RunBook(announcing=True)
