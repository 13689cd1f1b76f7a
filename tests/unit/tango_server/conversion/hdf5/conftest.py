"""HDF5 files that a test has read are closed after it, so that the next one may write them anew."""

from collections.abc import Iterator

import pytest

from tango_server.conversion.hdf5.open_files import close_all


@pytest.fixture(autouse=True)
def closed_files() -> Iterator[None]:
    yield
    close_all()
