"""One server process for many tests: Init gives it the roots, the ledger and the settings of the next."""

import json
from collections.abc import Sequence
from pathlib import Path

import tango

from tango_server.client.local_server import LocalServer
from tango_server.commands.assignments import as_lines
from tango_server.device.property_lines import from_lines


class ReusedServer(LocalServer):
    """`petif serve` with a file of settings only. A test may stop or kill it: the next one starts it again."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, folder)
        self._file = folder / "petif.toml"
        self._arguments = ["--port", "0", "--stop-on-eof", "--config", str(self._file)]

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def serve(self, root: Path, assignments: Sequence[str]) -> None:
        """Be a new server for `root` from now on.

        Raises
        ------
        RuntimeError
            as from `LocalServer.start`, if a setting is wrong, a folder is missing, or the ledger can't be used.
        """
        lines = as_lines(tuple((name, value) for name, _, value in (each.partition("=") for each in assignments)))
        settings = {"read_roots": [str(root)], "state_dir": str(root / "state"), **from_lines(lines)}
        self._file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
        if not self.is_running:
            self.stop()
            self.start()
            return
        proxy = tango.DeviceProxy(self.address)
        proxy.Init()
        if proxy.state() == tango.DevState.FAULT:
            raise RuntimeError(proxy.status())
