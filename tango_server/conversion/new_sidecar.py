"""Stand-in."""

from tango_server.conversion.frame_header import FrameHeader
from tango_server.conversion.image.orientation import Orientation


def sidecar_text(header: FrameHeader, turned: Orientation, shape: tuple[int, int]) -> str:
    """Return nothing yet."""
    del header, turned, shape
    return ""
