"""What the callback costs the RunEngine, and how the memory of a session grows.

    python -m benchmarks.callback [--short] [--write docs/explanation/performance/callback.csv]

A real RunEngine counts a detector that writes no files, so that an event costs as little as it can. Runs with the
callback subscribed and runs without take turns in one process.
"""

# ruff: noqa: D102 - the methods are bluesky's and the client's

import argparse
import gc
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np
import psutil
from bluesky import RunEngine
from event_model import compose_resource
from rich.console import Console

from benchmarks.results import Figure, machine, publish, rows
from petif_bluesky import ConversionCallback
from petif_bluesky.delivery.run_book import RunBook
from tango_server.client.client import Client, LinkDownError
from tango_server.messages import AcceptedJob, SubmitAnswer
from tango_server.recipe import Recipe

START = {"conversion": {"recipe": Recipe.preset("xdi", rotation=90).model_dump(mode="json")}, "sample_name": "diamond"}
MIB = 2**20


class Detector:
    """Announces one TIFF an event, and reads 20 numbers beside it, as a beamline's baseline of signals would."""

    name = "pe"
    parent = None

    def __init__(self) -> None:
        self._documents: list[tuple[str, Any]] = []
        self._reading: dict[str, Any] = {}

    def stage(self) -> list[Any]:
        self._bundle = compose_resource(
            spec="AD_TIFF", root="/", resource_path="data/raw",
            resource_kwargs={"template": "%s%s-%5.5d.tif", "filename": "sample", "frame_per_point": 1},
        )  # fmt: skip
        self._documents = [("resource", self._bundle.resource_doc)]
        self._point = 0
        return [self]

    def unstage(self) -> list[Any]:
        return [self]

    def take(self) -> None:
        """Take a frame."""
        datum = self._bundle.compose_datum(datum_kwargs={"point_number": self._point})
        self._point += 1
        self._documents.append(("datum", datum))
        now = time.time()
        self._reading = {"pe_image": {"value": datum["datum_id"], "timestamp": now}}
        for number in range(20):
            self._reading[f"pe_{number}"] = {"value": np.float64(number), "timestamp": now}

    def describe(self) -> dict[str, Any]:
        image = {"source": "b", "dtype": "array", "shape": [1, 2048, 2048], "external": "FILESTORE:"}
        numbers = {f"pe_{number}": {"source": "b", "dtype": "number", "shape": []} for number in range(20)}
        return {"pe_image": image, **numbers}

    def read(self) -> dict[str, Any]:
        return self._reading

    def read_configuration(self) -> dict[str, Any]:
        return {"pe_exposure_time": {"value": 0.1, "timestamp": 0.0}}

    def describe_configuration(self) -> dict[str, Any]:
        return {"pe_exposure_time": {"source": "b", "dtype": "number", "shape": [], "units": "s"}}

    def collect_asset_docs(self) -> Iterator[tuple[str, Any]]:
        documents, self._documents = self._documents, []
        yield from documents


class StandIn(Client):
    """A server that takes everything at once, or (`down`) nothing."""

    def __init__(self, *, down: bool = False) -> None:
        super().__init__("tango://benchmark:1/petif/converter/1#dbase=no")
        self.down = down
        self.taken = 0

    def submit(self, requests: Sequence[Mapping[str, Any]], runs: Sequence[str] = ()) -> SubmitAnswer:
        if self.down:
            raise LinkDownError("the server is down")
        del runs
        self.taken += len(requests)
        return SubmitAnswer(jobs=[AcceptedJob(job_id="1", source=fields["source"]) for fields in requests], refused=[])


@dataclass
class Converter:
    """What the callback needs of one."""

    client: Client
    runs: RunBook = field(default_factory=RunBook)


class Bench:
    """A RunEngine, and how long each event took it."""

    def __init__(self) -> None:
        self.engine = RunEngine({}, context_managers=[])
        self.detector = Detector()

    def run(self, events: int) -> list[float]:
        """Return the seconds that each event of one run took, from the trigger to the next."""
        took: list[float] = []

        @bpp.stage_decorator([self.detector])
        @bpp.run_decorator(md=START)
        def plan() -> Any:
            for _ in range(events):
                began = time.perf_counter()
                self.detector.take()
                yield from bps.create("primary")
                yield from bps.read(self.detector)
                yield from bps.save()
                took.append(time.perf_counter() - began)

        self.engine(plan())
        return took


def figures(measurement: str, case: str, seconds: Sequence[float]) -> list[Figure]:
    quantiles = {"median": 0.5, "99 %": 0.99, "max": 1.0}
    return rows(measurement, case, "ms", {name: 1e3 * float(np.quantile(seconds, q)) for name, q in quantiles.items()})


def overhead(folder: Path, events: int, rounds: int) -> list[Figure]:
    bench = Bench()
    kinds: dict[str, ConversionCallback | None] = {"none subscribed": None}
    for name, down in (("callback, server takes all", False), ("callback, server is down", True)):
        server = StandIn(down=down)
        kinds[name] = ConversionCallback(Converter(server), spool=folder / f"{down}.sqlite")
    took: dict[str, list[float]] = {name: [] for name in kinds}
    calls: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, callback in kinds.items():
            token = bench.engine.subscribe(_timed(callback, calls[name])) if callback else None
            took[name] += bench.run(events)
            if token is not None:
                bench.engine.unsubscribe(token)
    for callback in kinds.values():
        if callback:
            callback.close()
    events_of = [figures("one event", name, seconds) for name, seconds in took.items()]
    calls_of = [figures("one call of the callback", name, seconds) for name, seconds in calls.items() if seconds]
    return [figure for each in (*events_of, *calls_of) for figure in each]


def _timed(callback: ConversionCallback, took: list[float]) -> Callable[[str, Any], None]:
    def call(name: str, document: Any) -> None:
        began = time.perf_counter()
        callback(name, document)
        if name == "event":
            took.append(time.perf_counter() - began)

    return call


def memory(folder: Path, events: int, runs: int) -> list[Figure]:
    bench, server = Bench(), StandIn()
    converter = Converter(server)
    callback = ConversionCallback(converter, spool=folder / "memory.sqlite")
    bench.engine.subscribe(callback)
    process = psutil.Process()
    sizes = []
    for _ in range(runs):
        bench.run(events)
        while callback.waiting:
            time.sleep(0.01)
        gc.collect()
        sizes.append(process.memory_info().rss / MIB)
    callback.close()
    assert server.taken == runs * events, f"{server.taken} frames came, not {runs * events}"
    shown = [number for number in (1, 2, 5, 10, 15, 20) if number <= runs]
    return [
        Figure("memory of the session", f"{number} runs of {events} events", "resident", sizes[number - 1], "MiB")
        for number in shown
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a fraction of everything")
    parser.add_argument("--write", type=Path, help="write the figures to this CSV file")
    arguments = parser.parse_args()
    events, rounds, runs = (100, 2, 5) if arguments.short else (1000, 5, 20)
    measured = machine(f"python -m benchmarks.callback{' --short' if arguments.short else ''}")
    with tempfile.TemporaryDirectory() as name, Console(stderr=True).status("measuring"):
        measured += [*overhead(Path(name), events, rounds), *memory(Path(name), events, runs)]
    publish(measured, arguments.write)


if __name__ == "__main__":
    main()
