"""Attempts to stop, fool or bloat a running server: `python -m tests.hostile [--inputs 10000] [--seed 15]`.

Each input is drawn with a fixed seed: a file whose bytes, tags, sidecar, name or time of modification are unusual, in a
request whose recipe and metadata may be unusual, too; between them, calls of other commands with any argument. Good
frames must be converted in no time meanwhile. At the end every job has its report, the server is not in FAULT, its
memory is what it was, and it starts again as quickly as ever.
"""

import json
import os
import random
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import psutil
import tango

from tango_server.client.local_server import LocalServer

GOOD = Path(__file__).parent / "data" / "qxrd_f32_64.tif"
SETTINGS = ("settle_time=0.05", "timeout=0.3", "run_timeout=0.4", "sidecar_timeout=0.05", "free_space_limit=0",
            "free_space_warning=0", "time_limit=20")  # fmt: skip
PORTION = 100
CALLS = 20
WARM = 500
PATIENCE = 120.0
SPECIAL = (
    "\x00", "\x1b[2J", "\n", "\r", "\u202e", "\ud800", "\udcff", "\u2028", "\ufeff", "\U0010ffff", "\x9b", "{", "[",
    '"', "\\", "%s", "{0}", "$HOME", "../", "ImageJ=1.1\nimages=99999\n", '{"petif": 1}', '{"shape": [9, 9, 9]}',
)  # fmt: skip


@dataclass
class Attempts:
    """Draws hostile inputs below a folder `raw`."""

    raw: Path
    draw: random.Random
    count: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    def requests(self) -> Iterator[dict[str, Any]]:
        """Yield requests without end, each about a file that was just written."""
        while True:
            self.count += 1
            path = self.raw / self._name()
            self.write(path)
            yield self._request(path)

    def write(self, path: Path) -> None:
        """Write a hostile file of any kind, perhaps with a sidecar."""
        kinds: list[Callable[[Path], None]] = [
            self._changed_bytes, self._cut, self._tags, self._directories, self._sidecar, self._time, self._noise
        ]  # fmt: skip
        kind = self.draw.choice(kinds)
        self.kinds[kind.__name__.strip("_")] += 1
        kind(path)

    def calls(self, count: int) -> Iterator[tuple[str, Any]]:
        """Yield calls of commands with arguments of the right Tango type, and of anything else."""
        queries = ("ListFolder", "FindMissing", "GetReports", "Cancel", "SetRecipe", "Submit")
        paths = ("AddFolder", "AddFileOrDir", "TestOsExists", "TestOsIsDir", "GetRunStatistics")
        names = ("folder", "paths", "job_ids", "run_uid", "latest", "after", "limit", "rotation", "requests", "output")
        for _ in range(count):
            kind = self.draw.randrange(4)
            if kind == 0:
                yield self.draw.choice(queries), latin(self.text(200))
            elif kind == 1:
                query = {self.draw.choice(names): self.value() for _ in range(self.draw.randrange(4))}
                yield self.draw.choice(queries), latin(json.dumps(query))
            elif kind == 2:
                place = self.draw.choice((str(self.raw), f"{self.raw}/../..", "/proc/self/fd", "/dev", "", "~", "C:\\"))
                yield self.draw.choice(paths), latin(place + "/" * self.draw.randrange(3) + self.text(20))
            else:
                yield "AddFiles", [latin(str(self.raw) + "/" + self.text(20)) for _ in range(self.draw.randrange(9))]

    def text(self, longest: int = 40) -> str:
        """Return a text of anything."""
        parts = [
            self.draw.choice(SPECIAL) if self.draw.random() < 0.4 else chr(self.draw.choice((97, 48, 233, 946, 128169)))
            for _ in range(self.draw.randrange(longest))
        ]
        return "".join(parts)

    def value(self, depth: int = 0) -> Any:
        """Return a JSON value of any kind."""
        simple = (None, True, 0, -1, 2**63, 2**64, 10**400, 0.5, 1e308, float("nan"), float("inf"))
        kind = self.draw.randrange(4 if depth < 6 else 2)
        if kind == 0:
            return self.draw.choice(simple)
        if kind == 1:
            return self.text()
        inner = [self.value(depth + 1) for _ in range(self.draw.randrange(4))]
        return inner if kind == 2 else {self.text(10): value for value in inner}

    def _name(self) -> str:
        name = f"{self.count:06d}"
        if self.draw.random() < 0.2:
            name += "".join(c for c in self.text(20) if c not in "\x00/\ud800" and not "\ud800" <= c <= "\udbff")
        return name.encode("utf-8", "surrogateescape")[:200].decode("utf-8", "surrogateescape") + ".tif"

    def _changed_bytes(self, path: Path) -> None:
        whole = bytearray(GOOD.read_bytes())
        for _ in range(self.draw.randrange(1, 12)):
            place = self.draw.choice((self.draw.randrange(8), self.draw.randrange(len(whole) - 400, len(whole))))
            whole[place] = self.draw.randrange(256)
        path.write_bytes(whole)

    def _cut(self, path: Path) -> None:
        whole = GOOD.read_bytes()
        path.write_bytes(whole[: self.draw.randrange(len(whole))])

    def _tags(self, path: Path) -> None:
        texts = {tag: self.text(200).encode("utf-8", "surrogatepass") + b"\0" for tag in (269, 270, 305, 306)}
        if self.draw.random() < 0.3:
            texts[270] = json.dumps({"petif": 1, **{key: self.value() for key in ("recipe", "source", "job")}}).encode()
        if self.draw.random() < 0.05:
            texts[270] = b"[" * self.draw.randrange(1, 60_000)
        self._write(path, {}, texts)

    def _directories(self, path: Path) -> None:
        changes = {
            self.draw.choice(
                (256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 322, 323, 339, 40_000)
            ): (
                self.draw.choice((1, 2, 3, 4, 7, 13, 16)),
                self.draw.choice((0, 1, 2, 100, 2**20, 2**31, 2**32 - 1)),
                self.draw.choice((0, 1, 2, 5, 8, 32, 2**16, 2**31, 2**32 - 1)),
            )
            for _ in range(self.draw.randrange(1, 6))
        }
        self._write(path, changes, {})

    def _write(self, path: Path, changes: dict[int, tuple[int, int, int]], texts: dict[int, bytes]) -> None:
        pixels = bytes(64 * 64)
        entries = {256: (3, 1, 64), 257: (3, 1, 64), 258: (3, 1, 8), 262: (3, 1, 1), 273: (4, 1, 8), 279: (4, 1, 4096)}
        body = b"II*\0" + struct.pack("<I", 0) + pixels
        for tag, text in texts.items():
            entries[tag] = (2, len(text), len(body))
            body += text
        packed = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted({**entries, **changes}.items()))
        following = self.draw.choice((0, 0, 0, 8, len(body), 2**32 - 1))
        directory = struct.pack("<H", len(packed) // 12) + packed + struct.pack("<I", following)
        path.write_bytes(body[:4] + struct.pack("<I", len(body)) + body[8:] + directory)

    def _sidecar(self, path: Path) -> None:
        path.write_bytes(GOOD.read_bytes())
        keys = ("centerX", "centerY", "detectorDistance", "energy", "tiltPlaneRotation", "width", self.text(5))
        values = ("1e400", "nan", "-1", "", "0x10", "1" * 400, " " * self.draw.choice((1, 1000, 100_000)), self.text())
        lines = [f"{self.draw.choice(keys)}={self.draw.choice(values)}" for _ in range(self.draw.randrange(60))]
        text = "[metadata]\n[centerfinder]\n" + "\n".join(lines) + "\n"
        path.with_name(path.name + ".metadata").write_bytes(text.encode("utf-8", "surrogatepass"))

    def _time(self, path: Path) -> None:
        path.write_bytes(GOOD.read_bytes())
        seconds = self.draw.choice((-(2**31), -1, 0, 2**31, 2**32, 9_223_372_036, 9_300_000_000, 15_000_000_000))
        os.utime(path, ns=(0, seconds * 10**9 + self.draw.randrange(10**9)))

    def _noise(self, path: Path) -> None:
        path.write_bytes(self.draw.randbytes(self.draw.choice((0, 1, 3, 8, 100, 5000))))

    def _request(self, path: Path) -> dict[str, Any]:
        request: dict[str, Any] = {"source": str(path)}
        if self.draw.random() < 0.3:
            request["metadata"] = {"shape": self.value(), self.text(8): self.value(), "omega": self.value()}
        if self.draw.random() < 0.2:
            field_name = self.draw.choice(("run_uid", "stream", "seq_num", "key", "recipe", self.text(8)))
            request[field_name] = self.value()
        if self.draw.random() < 0.3:
            request["recipe"] = self._recipe()
        return request

    def _recipe(self) -> dict[str, Any]:
        recipe: dict[str, Any] = {"rotation": self.draw.choice((0, 90, 180, 270)), "pixel_type": "int32"}
        output = {
            name: self.text(12) for name in ("folder", "template", "group", "file_mode") if self.draw.random() < 0.2
        }
        recipe["output"] = self.draw.choice(
            ({}, output, {"mode": "in_place", "backup": True}, {"on_existing": "number"})
        )
        if self.draw.random() < 0.2:
            recipe["format"] = "esperanto"
            recipe["esperanto"] = {"wavelength": "omega", "omega": self.value(), "mask": self.text(10)}
        if self.draw.random() < 0.1:
            recipe[self.draw.choice(("rotation", "compression", "invalid_value", self.text(6)))] = self.value()
        return recipe


@dataclass
class Watched:
    """A server under attack, with what was seen of it."""

    server: LocalServer
    raw: Path
    good: int = 0
    slowest: float = 0.0
    start: float = 0.0

    def started(self) -> tango.DeviceProxy:
        """Start the server and return its device; `start` is how long it took (s)."""
        begun = time.monotonic()
        self.server.start()
        self.start = time.monotonic() - begun
        proxy = tango.DeviceProxy(self.server.address)
        proxy.set_timeout_millis(20_000)
        return proxy

    def convert_good(self, proxy: tango.DeviceProxy) -> None:
        """Convert a good frame; keep the longest time that it took (s)."""
        self.good += 1
        path = self.raw / f"good-{self.good:05d}.tif"
        path.write_bytes(GOOD.read_bytes())
        begun = time.monotonic()
        answer = ask(proxy, "Submit", {"requests": [{"source": str(path), "recipe": {"rotation": 90}}]})
        (report,) = reports(proxy, [job["job_id"] for job in answer["jobs"]])
        self.slowest = max(self.slowest, time.monotonic() - begun)
        assert report["outcome"] == "converted", report

    def memory(self) -> int:
        """Bytes that the server's own process holds."""
        return int(psutil.Process(self.server.pid).memory_info().rss)


def latin(text: str) -> str:
    """Return a text that Tango can carry."""
    return text.encode("latin-1", "replace").decode("latin-1").replace("\0", " ")


def pester(proxy: tango.DeviceProxy, attempts: Attempts, count: int) -> Counter[str]:
    """Call commands with hostile arguments; return how often they were answered, and refused for which reason."""
    told: Counter[str] = Counter()
    for command, argument in attempts.calls(count):
        try:
            proxy.command_inout(command, argument)
            told["answered"] += 1
        except tango.DevFailed as error:
            reason = error.args[0].reason
            told[reason if reason.startswith("PETIF_") else f"{command}({argument!r}): {error.args[0].desc}"] += 1
    strange = [reason for reason in told if not reason.startswith(("PETIF_", "answered"))]
    assert not strange, strange
    return told


def ask(proxy: tango.DeviceProxy, command: str, query: dict[str, Any]) -> dict[str, Any]:
    """Call a command with JSON as a hostile client may write it: with NaN, and numbers of any length."""
    answer: dict[str, Any] = json.loads(proxy.command_inout(command, json.dumps(query)))
    return answer


def reports(proxy: tango.DeviceProxy, job_ids: list[str]) -> list[dict[str, Any]]:
    """Return the reports of jobs once all are there."""
    deadline = time.monotonic() + PATIENCE
    pause = 0.01
    while True:
        answer = ask(proxy, "GetReports", {"job_ids": job_ids, "limit": 10_000})
        if answer["pending"] == 0:
            found: list[dict[str, Any]] = answer["reports"]
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"{answer['pending']} of {len(job_ids)} jobs have no report after {PATIENCE} s")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)


def submitted(proxy: tango.DeviceProxy, portion: list[dict[str, Any]]) -> list[str]:
    """Submit requests, one by one where they spoil the whole call; return the ids of the jobs."""
    try:
        answer = ask(proxy, "Submit", {"requests": portion})
    except tango.DevFailed as error:
        if not error.args[0].reason.startswith("PETIF_"):
            raise
        return [] if len(portion) == 1 else [job for one in portion for job in submitted(proxy, [one])]
    assert len(answer["jobs"]) + len(answer["refused"]) == len(portion), answer
    return [job["job_id"] for job in answer["jobs"]]


def attack(folder: Path, inputs: int, seed: int, within: float = 2.0) -> str:
    """Run the attempts; return what was seen. Raises if anything is not as it should be.

    `within` is how long a good frame may take (s).
    """
    raw = folder / "raw"
    raw.mkdir()
    options = [word for setting in SETTINGS for word in ("--set", setting)]
    watched = Watched(LocalServer(folder, folder / "state", ["--workers", "2", *options]), raw)
    attempts = Attempts(raw, random.Random(seed))
    outcomes: Counter[str] = Counter()
    told: Counter[str] = Counter()
    warm = 0
    proxy = watched.started()
    first_start = watched.start
    try:
        drawn = attempts.requests()
        while attempts.count < inputs:
            told += pester(proxy, attempts, CALLS)
            jobs = submitted(proxy, [next(drawn) for _ in range(min(PORTION, inputs - attempts.count))])
            watched.convert_good(proxy)
            outcomes.update(report["outcome"] for report in reports(proxy, jobs))
            outcomes["refused"] += PORTION - len(jobs)
            assert proxy.state() != tango.DevState.FAULT, proxy.status()
            if attempts.count <= WARM:
                warm = watched.memory()
            for path in raw.iterdir():
                path.unlink()
        grown = watched.memory() - warm
        psutil.Process(watched.server.pid).kill()
        watched.server.stop()
        proxy = watched.started()
        watched.convert_good(proxy)
        state = proxy.state()
    finally:
        watched.server.stop()
    assert state != tango.DevState.FAULT, state
    assert watched.slowest < within, f"a good frame took {watched.slowest:.2f} s"
    assert grown < 50e6, f"memory grew by {grown / 1e6:.0f} MB"
    assert watched.start < first_start + 5.0, f"the restart took {watched.start:.1f} s"
    return (
        f"{attempts.count} inputs (seed {seed}): {dict(outcomes)}; good frames within {watched.slowest:.2f} s; "
        f"memory {grown / 1e6:+.1f} MB after the first {WARM}; started in {first_start:.1f} s, again in "
        f"{watched.start:.1f} s; drawn: {dict(attempts.kinds)}; calls: {dict(told)}"
    )


@click.command()
@click.option("--inputs", default=10_000, show_default=True, help="How many hostile inputs.")
@click.option("--seed", default=15, show_default=True, help="Of what is drawn.")
def main(inputs: int, seed: int) -> None:
    """Try to stop, fool or bloat a server; exit code 0 if nothing did."""
    with tempfile.TemporaryDirectory() as folder:
        click.echo(attack(Path(folder).resolve(), inputs, seed))


if __name__ == "__main__":
    main()
