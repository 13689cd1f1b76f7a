"""The callback without a bluesky session."""

from petif_bluesky.delivery.run_book import RunBook
from tango_server.client.client import Client


class RemoteSession:
    """Takes the place of a converter for the callback, where there is no session and no ophyd Device."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.runs = RunBook()
