"""Where programs of ours keep what is to survive them, also for a user who has no home folder."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

_lent: list[str] = []


class NoHomeError(OSError):
    """The user has no home folder, and nobody has said where to keep what is to survive the program."""


def state_folder() -> Path:
    """Return the folder of this user for what is to survive a program, by the custom of this platform.

    Raises
    ------
    NoHomeError
        if the user has no home folder, as one without an entry in the system's list of users.

    """
    if os.environ.get("HOME") not in _lent or os.environ.get("XDG_STATE_HOME"):
        try:
            return platformdirs.user_state_path("petif-bluesky").absolute()
        except RuntimeError:  # no HOME, and no entry
            pass
    raise NoHomeError(
        f"found no home folder of the user {_user()}; expected one for what is to survive this program. "
        "Name a folder for it (of petif: --state-dir, of ConversionCallback: spool), or set HOME."
    )


@contextmanager
def temporary_home() -> Iterator[None]:
    """Lend a user without a home folder an empty one, for as long as the block takes: libraries ask for it."""
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
    """Give omniORB a folder for its local sockets if the user has no name: it is called by that, or nothing starts."""
    if os.name == "nt":
        return
    import pwd  # noqa: PLC0415 - there is none on Windows

    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        os.environ.setdefault("ORBunixTransportDirectory", f"{tempfile.gettempdir()}/omni-{_user()}")


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else ""
