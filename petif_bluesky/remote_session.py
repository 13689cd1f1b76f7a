"""The callback without a bluesky session."""

from petif_bluesky.link import Link
from petif_bluesky.runs import RunBook


class RemoteSession:
    """What the callback needs of a converter, where there is no session and so no ophyd Device."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.runs = RunBook()
