"""What the reports of a fly scan cost when its run closes, with and without a Tiled catalogue.

    python -m benchmarks.reporting [--short] [--write docs/explanation/performance/reporting.csv]

A real RunEngine closes a run whose frames are all converted already, by a server that costs nothing. Tiled runs in this
process, on a memory file system if there is one. The cases take turns.
"""

# ruff: noqa: D102 - the methods are bluesky's

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
from bluesky import RunEngine
from bluesky_tiled_plugins import TiledWriter
from event_model import ComposeStreamResource, StreamRange
from rich.console import Console
from tiled.client import from_uri
from tiled.server import SimpleTiledServer

from benchmarks.results import Figure, machine, publish
from petif_bluesky import ConversionCallback, PETifConverter, conversion_wrapper
from petif_bluesky.testing.fake_server import FakeServer
from petif_bluesky.testing.reports import converted_beside
from petif_bluesky.tiled.literal_names import LiteralNames
from tango_server.messages import FrameReport, FrameRequest

SHAPE = [1, 64, 64]
MEMORY = Path("/dev/shm")


class Flyer:
    """Announces all its TIFFs by one stream datum."""

    name = "pe"
    parent = None

    def __init__(self, frames: int) -> None:
        self._frames = frames

    def describe_collect(self) -> dict[str, Any]:
        key = {"source": "b", "dtype": "array", "dtype_numpy": "<f4", "shape": SHAPE, "external": "STREAM:"}
        return {"pe_image": key}

    def get_index(self) -> int:
        return self._frames

    def collect_asset_docs(self, index: int | None = None) -> Iterator[tuple[str, Any]]:
        bundle = ComposeStreamResource()(
            mimetype="multipart/related;type=image/tiff", uri="file://localhost/data/raw/", data_key="pe_image",
            parameters={"chunk_shape": SHAPE, "template": "sample_{:05d}.tif"},
        )  # fmt: skip
        yield "stream_resource", bundle.stream_resource_doc
        indices = StreamRange(start=0, stop=index or self._frames)
        yield "stream_datum", bundle.compose_stream_datum(indices=indices, seq_nums=StreamRange(start=0, stop=0))


def esperanto(request: FrameRequest) -> FrameReport:
    """Report a frame as converted to a file without an image for catalogues."""
    report = converted_beside(request)
    return report.model_copy(update={"output": str(Path(report.output or "").with_suffix(".esperanto"))})


REPORTERS: dict[str, Callable[[FrameRequest], FrameReport] | None] = {
    "not converted": None,
    "TIFF": converted_beside,
    "ESPERANTO": esperanto,
}


class Bench:
    """A session that closes fly scans."""

    def __init__(self, folder: Path, frames: int) -> None:
        self._frames = frames
        self._server = FakeServer(None)
        self._converter = PETifConverter(self._server.address, name="c", poller=self._server)
        self._engine = RunEngine({}, context_managers=[])
        self.callback = ConversionCallback(self._converter, spool=folder / "spool.sqlite")
        self._engine.subscribe(self.callback)

    def seconds(self, reporter: Callable[[FrameRequest], FrameReport] | None, writer: Any) -> float:
        """Return the time from the last message of the plan before `close_run` to the end of the run."""
        flyer, began = Flyer(self._frames), 0.0

        def scan() -> Any:
            nonlocal began
            yield from bps.open_run()
            yield from bps.declare_stream(flyer, name="fly", collect=True)
            yield from bps.collect(flyer, name="fly")
            while self.callback.waiting:
                time.sleep(0.01)
            began = time.perf_counter()
            yield from bps.close_run()

        self._server.report = reporter or converted_beside
        token = self._engine.subscribe(writer) if writer else None
        self._engine(conversion_wrapper(scan(), self._converter) if reporter else scan())
        took = time.perf_counter() - began
        if token is not None:
            self._engine.unsubscribe(token)
        return took


def closing(folder: Path, frames: int, rounds: int) -> list[Figure]:
    """Return the median time to close a run of each kind."""
    bench = Bench(folder, frames)
    tiled = SimpleTiledServer(folder / "catalogue", readable_storage=["/data"])
    try:
        client = from_uri(tiled.uri)
        writers = {"no catalogue": None, "TiledWriter": LiteralNames(TiledWriter(client))}
        took: dict[tuple[str, str], list[float]] = {(kind, name): [] for kind in REPORTERS for name in writers}
        for _ in range(rounds):
            for (kind, name), seconds in took.items():
                seconds.append(bench.seconds(REPORTERS[kind], writers[name]))
        client.context.close()
    finally:
        bench.callback.close()
        tiled.close()
    return [
        Figure(f"closing a fly scan of {frames} frames", f"{kind}, {name}", "median", statistics.median(seconds), "s")
        for (kind, name), seconds in took.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a fraction of everything")
    parser.add_argument("--write", type=Path, help="write the figures to this CSV file")
    arguments = parser.parse_args()
    frames, rounds = (100, 2) if arguments.short else (1000, 5)
    measured = machine(f"python -m benchmarks.reporting{' --short' if arguments.short else ''}")
    memory = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as name, Console(stderr=True).status("measuring"):
        measured += closing(Path(name), frames, rounds)
    publish(measured, arguments.write)


if __name__ == "__main__":
    main()
