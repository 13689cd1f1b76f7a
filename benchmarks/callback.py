"""What does the callback cost the RunEngine, and how does the memory of a session grow? One command makes the page.

    python -m benchmarks.callback [--short] [--write docs/explanation/callback-speed.md]

A real RunEngine counts a detector that writes no files, so that an event costs as little as it can. Runs with the
callback subscribed and runs without take turns in one process.
"""

# ruff: noqa: D102 - the methods are bluesky's and the client's

import argparse
import gc
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np
import psutil
from bluesky import RunEngine
from event_model import compose_resource
from rich.console import Console

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


def figures(name: str, seconds: Sequence[float]) -> str:
    median, high, most = (1e3 * float(np.quantile(seconds, q)) for q in (0.5, 0.99, 1.0))
    return f"| {name} | {median:.3f} | {high:.3f} | {most:.2f} |"


def overhead(folder: Path, events: int, rounds: int) -> list[str]:
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
    lines = ["| one event, ms | median | 99 % | max |", "|---|---|---|---|"]
    lines += [figures(name, seconds) for name, seconds in took.items()]
    lines += [figures(f"the call with the event alone: {name}", calls[name]) for name in kinds if calls[name]]
    return [f"{rounds} runs of {events} events of each kind, taking turns:", "", *lines, ""]


def _timed(callback: ConversionCallback, took: list[float]) -> Callable[[str, Any], None]:
    def call(name: str, document: Any) -> None:
        began = time.perf_counter()
        callback(name, document)
        if name == "event":
            took.append(time.perf_counter() - began)

    return call


def memory(folder: Path, events: int, runs: int) -> list[str]:
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
    shown = [0, 1, 4, 9, 14, 19]
    return [
        f"Memory of the session after so many runs of {events} events, the callback subscribed;",
        f"all {server.taken} frames came to the server:",
        "",
        "| runs | " + " | ".join(str(index + 1) for index in shown if index < runs) + " |",
        "|---|" + "---|" * sum(index < runs for index in shown),
        "| MiB | " + " | ".join(f"{sizes[index]:.1f}" for index in shown if index < runs) + " |",
        "",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a fraction of everything")
    parser.add_argument("--write", type=Path, help="write the page to this Markdown file")
    arguments = parser.parse_args()
    events, rounds, runs = (100, 2, 5) if arguments.short else (1000, 5, 20)
    load = psutil.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name, Console(stderr=True).status("measuring"):
        lines = [
            "# What the callback costs a run",
            "",
            f"Made by `python -m benchmarks.callback{' --short' if arguments.short else ''}`; not edited by hand.",
            "A detector that writes no files, with 20 numbers beside its image in each event; the spool on the disk.",
            "The goal is less than 1 ms an event in the RunEngine's thread.",
            f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()},",
            f"{datetime.now():%Y-%m-%d}; load of the machine before: {load:.1f}.",
            "",
            *overhead(Path(name), events, rounds),
            *memory(Path(name), events, runs),
        ]
    text = "\n".join(lines)
    print(text)
    if arguments.write:
        arguments.write.write_text(text)


if __name__ == "__main__":
    main()
