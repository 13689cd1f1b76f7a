"""A web page that shows the activity of a running server: `petif monitor`, or `monitor_panel` in a notebook."""

from typing import Any

from tango_server.addresses import DEFAULT_ADDRESS

__all__ = ["DEFAULT_ADDRESS", "monitor_panel"]


def monitor_panel(address: str = DEFAULT_ADDRESS, *, read_only: bool = False) -> Any:
    """Return the page as a Panel object for a notebook cell; call `panel.extension()` in an earlier cell.

    All pages of a process share one poll of the server at `address` per second. `read_only` omits the buttons that act
    on the server. In a notebook only the page of the last cell is updated: the kernel can't know which of the earlier
    ones are still visible.
    """
    from tango_server.monitor.page import MonitorPage  # noqa: PLC0415 - takes seconds to import
    from tango_server.monitor.sharing import follow_alone, shared_by  # noqa: PLC0415

    page = MonitorPage(shared_by(address), read_only=read_only)
    follow_alone(address, page.follow)
    return page.layout
