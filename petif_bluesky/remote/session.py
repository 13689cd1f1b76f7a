"""The callback without a bluesky session."""

from petif_bluesky.delivery.run_book import RunBook
from petif_bluesky.link import Link


class RemoteSession:
    """What the callback needs of a converter, where there is no session and so no ophyd Device."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.runs = RunBook()
