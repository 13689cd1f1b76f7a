"""Where our programs keep persistent state, also for a user without a home folder."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

_lent: list[str] = []


class NoHomeError(OSError):
    """The user has no home folder, and no other folder for persistent state was given."""


def state_folder() -> Path:
    """Return this user's folder for persistent state, by the convention of this platform.

    Raises
    ------
    NoHomeError
        if the user has no home folder, for example without an entry in /etc/passwd.

    """
    if os.environ.get("HOME") not in _lent or os.environ.get("XDG_STATE_HOME"):
        try:
            return platformdirs.user_state_path("petif-bluesky").absolute()
        except RuntimeError:  # no HOME, and no entry
            pass
    raise NoHomeError(
        f"Cannot choose a state folder: user {_user()} has no home folder. "
        "Give one (petif: --state-dir, ConversionCallback: spool), or set HOME."
    )


@contextmanager
def temporary_home() -> Iterator[None]:
    """Give a user without a home folder a temporary one for the duration of the block: some libraries need it."""
    try:
        Path.home()
    except RuntimeError:
        with tempfile.TemporaryDirectory(prefix="petif-home-") as folder:
            _lent.append(folder)
            os.environ["HOME"] = folder
            try:
                yield
            finally:
                del os.environ["HOME"]
    else:
        yield


def give_omniorb_a_socket_folder() -> None:
    """Give omniORB a folder for its local sockets if the user has no name: it builds the path from that."""
    if os.name == "nt":
        return
    import pwd  # noqa: PLC0415 - there is none on Windows

    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("ORBunixTransportDirectory", f"{tempfile.gettempdir()}/omni-{_user()}")


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else ""
