"""The callback without a bluesky session."""

from petif_bluesky.delivery.run_book import RunBook
from tango_server.client.client import Client


class RemoteSession:
    """What the callback needs of a converter, where there is no session and so no ophyd Device."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.runs = RunBook()
