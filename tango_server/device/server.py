"""Runs the Tango server in this process, with or without a database."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import tango

from tango_server.addresses import address_of, free_port
from tango_server.device.administration import restrict
from tango_server.device.converter import PETifConverter
from tango_server.home import give_omniorb_a_socket_folder
from tango_server.observability.console import log_to_stderr
from tango_server.settings import Configuration

_SERVER = "PETifConverter"
_PAUSE = 1.0  # s
_SWITCH_INTERVAL = 1e-3  # s; reading the state must not wait for a long answer to another client


def run_registered(arguments: list[str]) -> None:
    """Run the server whose devices are in the Tango database. `arguments` are `sys.argv`.

    Exit code 0: it was stopped on request; anything else: it failed. Starter and systemd rely on that.
    """
    log_to_stderr(verbose=False)
    give_omniorb_a_socket_folder()
    sys.setswitchinterval(_SWITCH_INTERVAL)
    try:
        PETifConverter.run_server(arguments[1:], post_init_callback=lambda: restrict(may_be_ended=True), raises=True)
    except (tango.DevFailed, RuntimeError) as error:  # RuntimeError: PyTango, for a port that is in use
        sys.exit(
            f"{_SERVER}: cannot start: {error}. Check that the port (-port) is free and that the Tango database at "
            "TANGO_HOST is working."
        )


def run_without_database(
    configuration: Configuration, *, host: str, port: int, device: str, ready: Callable[[str], None], stop_on_eof: bool
) -> None:
    """Run one device without a Tango database until a signal ends it.

    `ready` is called with the device's address once clients can use it. Port 0 chooses a free one. With `stop_on_eof`
    the server stops at the end of standard input, that is with the program that holds the other end of the pipe, on
    every operating system.

    Raises
    ------
    OSError
        if the port is in use, or `host` is not an address of this machine.
    tango.DevFailed, RuntimeError
        if the server can't start for another reason.

    """
    give_omniorb_a_socket_folder()
    port = free_port(host, port)
    PETifConverter.configuration = configuration
    sys.setswitchinterval(_SWITCH_INTERVAL)
    address = address_of(host, port, device)

    def started() -> None:
        restrict(may_be_ended=os.name == "nt")  # where `_stop` needs Kill
        if stop_on_eof:
            threading.Thread(target=_stop_at_eof, args=(host, port), name="petif-stdin", daemon=True).start()
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as after `nohup`
            _stop_at_hangup(host, port)
        ready(address)

    arguments = ["standalone", "-nodb", "-host", host, "-port", str(port), "-dlist", device]
    PETifConverter.run_server(arguments, post_init_callback=started, raises=True)


def _stop_at_eof(host: str, port: int) -> None:
    while sys.stdin.buffer.read(1):
        pass
    _stop(host, port)


def _stop_at_hangup(host: str, port: int) -> None:
    """Stop when the terminal is closed. Tango ignores SIGHUP, and the server would continue unnoticed.

    The main thread runs no Python code while Tango serves: the signal writes to a pipe, which wakes another thread.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)

    def wait() -> None:
        while os.read(read, 1) != bytes([signal.SIGHUP]):
            pass
        _stop(host, port)

    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.signal(signal.SIGHUP, lambda *_: None)
    threading.Thread(target=wait, name="petif-hangup", daemon=True).start()


def _stop(host: str, port: int) -> None:
    """Shut the server down cleanly; repeat the request, since a starting server may miss it."""
    with tango.EnsureOmniThread():
        while True:
            if os.name == "nt":
                with contextlib.suppress(tango.DevFailed):
                    tango.DeviceProxy(address_of(host, port, f"dserver/{_SERVER}/standalone")).command_inout("Kill")
            else:
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(_PAUSE)
