"""The device from the entries of examples/happi and examples/guarneri, connected to a real server."""

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import happi
import pytest
import yaml

from petif_bluesky import PETifConverter
from tango_server.client.local_server import LocalServer

EXAMPLES = Path(__file__).parents[2] / "examples"
ADDRESS = "tango://conversion-host:45450/petif/converter/1#dbase=no"

Edit = Callable[[str], Path]


@pytest.fixture
def edited(server: LocalServer, tmp_path: Path) -> Edit:
    """Return a function that copies an example, with the address of the running server."""

    def copy(name: str) -> Path:
        text = (EXAMPLES / name).read_text(encoding="utf-8")
        assert text.count(ADDRESS) == 1
        target = tmp_path / Path(name).name
        target.write_text(text.replace(ADDRESS, server.address), encoding="utf-8")
        return target

    return copy


@pytest.fixture
def check(server: LocalServer) -> Iterator[Callable[[Any], None]]:
    """Return a function that checks that a loaded device is the converter; it is destroyed in the end."""
    loaded: list[PETifConverter] = []

    def is_converter(device: Any) -> None:
        assert isinstance(device, PETifConverter)
        loaded.append(device)
        device.wait_for_connection(timeout=20)
        assert (device.name, device.prefix, device.connected) == ("converter", server.address, True)

    yield is_converter
    for device in loaded:
        device.destroy()


def test_happi_loads_the_converter(edited: Edit, check: Callable[[Any], None]) -> None:
    client = happi.Client(path=str(edited("happi/db.json")))
    assert client.validate() == []
    check(client.load_device(name="converter"))


def test_entry_for_guarneri_makes_the_converter(edited: Edit, check: Callable[[Any], None]) -> None:
    entries = yaml.safe_load(edited("guarneri/devices.yaml").read_text(encoding="utf-8"))
    ((path, (arguments,)),) = entries.items()
    module, _, name = path.rpartition(".")
    check(getattr(import_module(module), name)(**arguments))  # as guarneri does


def test_guarneri_loads_the_converter(edited: Edit, check: Callable[[Any], None]) -> None:
    guarneri = pytest.importorskip("guarneri", reason="guarneri needs ophyd-async and is in no extra")
    instrument = guarneri.Instrument({})
    instrument.load(edited("guarneri/devices.yaml"))
    check(instrument.devices["converter"])
