"""A page in the browser that shows what a running server does: `petif monitor`, or `monitor_panel` in a notebook."""

from typing import Any

from tango_server.addresses import DEFAULT_ADDRESS

__all__ = ["DEFAULT_ADDRESS", "monitor_panel"]


def monitor_panel(address: str = DEFAULT_ADDRESS, *, read_only: bool = False) -> Any:
    """Return the page as a Panel object, for a cell of a notebook; call `panel.extension()` in a cell before.

    All pages of a process ask the server at `address` together, once a second. `read_only` leaves the buttons out that
    change something at the server. In a notebook the page of the last cell goes on, and those of earlier ones stand
    still: nobody tells the kernel which of them are still looked at.
    """
    from tango_server.monitor.page import MonitorPage  # noqa: PLC0415 - takes seconds, and the rest does without
    from tango_server.monitor.sharing import follow_alone, shared_by  # noqa: PLC0415

    page = MonitorPage(shared_by(address), read_only=read_only)
    follow_alone(address, page.follow)
    return page.layout
