"""The dark of a frame, from simulated sessions of documents: never one that does not fit, never one that came later."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petif_bluesky.documents.dark_book import DarkBook
from petif_bluesky.documents.darks import Dark, FoundDark, Light
from petif_bluesky.documents.detector_settings import DetectorSettings
from petif_bluesky.documents.frame import Frame
from petif_bluesky.documents.selection import FrameSelection
from petif_bluesky.frames import FrameRouter
from tango_server.recipe.corrections import DARK_FACTS
from tests.unit.documents import IMAGE, Document

RECIPE = {"corrections": {"dark": "run"}}
T0 = 1.7e9
PE = DetectorSettings("pe", "pe_image", (48, 64), 0.1, {"gain": 1.0})


class Session:
    """Documents of interleaved runs, and what comes of them, as in a session."""

    def __init__(self, selection: FrameSelection | None = None, **limits: Any) -> None:
        self.book = DarkBook()
        self.found: list[tuple[Frame, FoundDark]] = []
        self.darks: list[Dark] = []
        self._limits = {"max_age": None, "now": T0 + 1e6, **limits}
        self.router = FrameRouter(self._take, frames=selection, recipe_of=lambda _: RECIPE, take_dark=self._take_dark)
        self._count = 0
        self.readings: dict[str, float] = {}
        """Further data of the next events."""

    def start(self, uid: str, **metadata: Any) -> None:
        self.router("start", {"uid": uid, "time": T0, **metadata})

    def describe(self, run: str, stream: str, detectors: dict[str, "Setting"], **extra: Document) -> str:
        """Emit a descriptor with the configuration of detectors; return its uid."""
        self._count += 1
        uid = f"{run}-{stream}-{self._count}"
        document = {
            "uid": uid,
            "run_start": run,
            "name": stream,
            "data_keys": {
                f"{name}_image": {**IMAGE, "shape": [1, *setting.shape], "object_name": name}
                for name, setting in detectors.items()
            }
            | extra,
            "configuration": {
                name: {
                    "data": {f"{name}_cam_acquire_time": setting.exposure, f"{name}_cam_gain": setting.gain},
                    "data_keys": {},
                }
                for name, setting in detectors.items()
            },
        }
        self.router("descriptor", document)
        return uid

    def event(
        self, descriptor: str, seq_num: int, paths: dict[str, Sequence[str]], time: float, *, announced: bool = True
    ) -> list[tuple[str, Document]]:
        """Emit an event with the files of detectors; return the asset documents that were not announced."""
        data: dict[str, Any] = dict(self.readings)
        assets = list[tuple[str, Document]]()
        for name, files in paths.items():
            self._count += 1
            uid = f"resource-{self._count}"
            settings = {
                "template": "%s%s-%d.tif",
                "filename": files[0].removesuffix("-0.tif"),
                "frame_per_point": len(files),
            }
            resource = {"uid": uid, "spec": "AD_TIFF", "root": "/", "resource_path": "raw", "resource_kwargs": settings}
            datum = {"datum_id": f"{uid}/0", "resource": uid, "datum_kwargs": {"point_number": 0}}
            assets += [("resource", resource), ("datum", datum)]
            data[f"{name}_image"] = datum["datum_id"]
        if announced:
            self.send(assets)
        event = {
            "uid": f"{descriptor}/{self._count}",
            "descriptor": descriptor,
            "seq_num": seq_num,
            "time": time,
            "data": data,
            "timestamps": dict.fromkeys(data, time),
            "filled": {key: False for key in data if key.endswith("image")},
        }
        self.router("event", event)
        return [] if announced else assets

    def send(self, documents: list[tuple[str, Document]]) -> None:
        for name, document in documents:
            self.router(name, document)

    def dark_paths(self) -> list[tuple[str, ...]]:
        return [found.paths for _, found in self.found]

    def _take(self, frames: list[Frame]) -> None:
        for frame in frames:
            assert frame.light is not None
            self.found.append((frame, self.book.dark_for(frame.light, **self._limits)))

    def _take_dark(self, dark: Dark) -> None:
        self.darks.append(dark)
        self.book.add(dark)


@dataclass(frozen=True)
class Setting:
    exposure: float = 0.1
    gain: float = 1.0
    shape: tuple[int, int] = (48, 64)


@dataclass(frozen=True)
class _Taken:
    """An image: by whom, with which settings, in which run and in which step it was taken."""

    detector: str
    setting: Setting
    run: str
    number: int


@dataclass
class _Beamline:
    """Two detectors and two runs at a time; it keeps what each file is."""

    session: Session = field(default_factory=Session)
    runs: list[str] = field(default_factory=lambda: ["run0", "run1"])
    dark_runs: set[str] = field(default_factory=set)
    current: dict[str, Setting] = field(default_factory=dict)
    described: dict[tuple[str, str, str], tuple[Setting, str]] = field(default_factory=dict)
    darks: dict[str, _Taken] = field(default_factory=dict)
    lights: dict[str, _Taken] = field(default_factory=dict)
    late: list[list[tuple[str, Document]]] = field(default_factory=list)

    def step(self, number: int, what: str, detector: str, which: int, changes: dict[str, Any]) -> None:
        match what:
            case "configure":
                self.current[detector] = Setting(**changes)
            case "deliver":
                if self.late:
                    self.session.send(self.late.pop(which % len(self.late)))
            case "new run" | "dark run":
                self.stop(self.runs[which])
                self.runs[which] = uid = f"run-{number}"
                self.session.start(uid, dark_frame=what == "dark run", sc_dk_field_uid=next(iter(self.dark_runs), None))
                if what == "dark run":
                    self.dark_runs.add(uid)
            case _:
                self.take(number, self.runs[which], detector, dark="dark" in what, announced="late" not in what)

    def take(self, number: int, run: str, detector: str, *, dark: bool, announced: bool) -> None:
        stream, setting = "dark" if dark else "primary", self.current.setdefault(detector, Setting())
        known, uid = self.described.get((run, detector, stream), (None, ""))
        if known != setting:  # a device that was configured gets a new descriptor
            uid = self.session.describe(run, stream, {detector: setting})
            self.described[run, detector, stream] = setting, uid
        path = f"{number}-0.tif"
        files = self.darks if dark or run in self.dark_runs else self.lights
        files[f"/raw/{path}"] = _Taken(detector, setting, run, number)
        late = self.session.event(uid, number + 1, {detector: [path]}, T0 + number, announced=announced)
        self.late += [late] if late else []

    def stop(self, run: str) -> None:
        self.session.router("stop", {"uid": f"stop-{run}", "run_start": run})


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["dark", "light", "light", "late light", "late dark", "configure", "deliver", "new run", "dark run"]
        ),
        st.sampled_from(["pe1", "pe1", "pe1", "pe2"]),
        st.sampled_from([0, 0, 0, 1]),
        st.sampled_from([{"exposure": 1.0}, {"gain": 2.0}, {"shape": (64, 48)}, {}]),
    ),
    min_size=3,
    max_size=20,
)


@given(STEPS)
@settings(max_examples=200, deadline=None)
def test_wrong_or_later_dark_is_never_taken(steps: list[tuple[str, str, int, dict[str, Any]]]) -> None:
    beamline = _Beamline()
    for run in beamline.runs:
        beamline.session.start(run)
    for number, step in enumerate(steps):
        beamline.step(number, *step)
    for run in beamline.runs:
        beamline.stop(run)
    for frame, found in beamline.session.found:
        light = beamline.lights[frame.path]
        darks = [beamline.darks[path] for path in found.paths]
        assert all((dark.detector, dark.setting) == (light.detector, light.setting) for dark in darks)
        assert all(dark.number < light.number for dark in darks), "it came after the frame"
        assert {dark.run for dark in darks} <= {found.facts.run_uid}
        own = [dark for dark in beamline.darks.values() if (dark.detector, dark.run) == (light.detector, light.run)]
        before = [dark for dark in own if dark.number < light.number]
        if before and before[-1].setting == light.setting:
            assert darks in ([before[-1]], []), "the last one before the frame, or none if its files are not known"
        if not darks:
            assert found.facts.note


def light(**changes: Any) -> Light:
    return replace(Light("run", PE, T0 + 100, order=10), **changes)


def dark(path: str = "/raw/d.tif", **changes: Any) -> Dark:
    return replace(Dark("run", PE, (path,), T0, order=1), **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"detector": "pe2"}, "no dark of pe is known"),
        ({"data_key": "pe_other"}, "no dark of pe is known"),
        ({"shape": (64, 48)}, "64 x 48.*48 x 64"),
        ({"exposure_time": 0.102}, r"0\.102 s.*0\.1 s"),
        ({"gains": {"gain": 2.0}}, "gain is 2.*1"),
    ],
)
@pytest.mark.parametrize("run", ["run", "named", "earlier"])
def test_dark_that_differs_is_refused_by_name(run: str, changes: dict[str, Any], words: str) -> None:
    book = DarkBook([dark(run_uid=run, settings=replace(PE, **changes))])
    found = book.dark_for(light(dark_run="named"), None, T0)
    assert found.paths == ()
    assert re.search(words, found.facts.note), found.facts.note


def test_exposures_may_differ_by_one_percent() -> None:
    book = DarkBook([dark(settings=replace(PE, exposure_time=0.1009))])
    found = book.dark_for(light(), None, T0)
    assert found.paths == ("/raw/d.tif",)
    assert found.facts.model_dump(exclude_defaults=True) == {"run_uid": "run", "exposure_time": 0.1009, "gain": 1.0}


def test_unknown_values_are_in_the_note() -> None:
    book = DarkBook([dark(settings=replace(PE, exposure_time=None, gains={}))])
    found = book.dark_for(light(), None, T0)
    assert found.paths
    assert "unknown: exposure time, gain" in found.facts.note


def test_files_of_one_event_or_of_one_dark_run_are_averaged() -> None:
    event = DarkBook([dark("/raw/old.tif"), dark(order=2, paths=("/raw/a.tif", "/raw/b.tif"))])
    assert event.dark_for(light(), None, T0).paths == ("/raw/a.tif", "/raw/b.tif")
    named = [dark(f"/raw/{n}.tif", run_uid="dark", order=n, of_dark_run=True) for n in (1, 2, 3)]
    odd = dark("/raw/odd.tif", run_uid="dark", order=4, of_dark_run=True, settings=replace(PE, exposure_time=5.0))
    for frame in (light(dark_run="dark"), light()):
        found = DarkBook([*named, odd]).dark_for(frame, None, T0)
        assert found.paths == ("/raw/1.tif", "/raw/2.tif", "/raw/3.tif")
    assert DarkBook(named).dark_for(light(dark_run="dark", order=2), None, T0).paths == ("/raw/1.tif", "/raw/2.tif")


def test_sources_are_tried_in_order() -> None:
    own, named = dark("/raw/own.tif", time=T0 - 30), dark("/raw/named.tif", run_uid="dark", time=T0 - 20, order=2)
    other = dark("/raw/other.tif", run_uid="other", time=T0 - 10, order=3)
    frame = light(dark_run="dark")
    assert DarkBook([own, named, other]).dark_for(frame, None, T0).paths == own.paths
    assert DarkBook([named, other]).dark_for(frame, None, T0).paths == named.paths
    found = DarkBook([other]).dark_for(frame, None, T0, "the catalogue has not answered")
    assert found.paths == other.paths
    assert "dark run dark is not known: the catalogue has not answered" in found.facts.note
    assert "the newest known dark" in found.facts.note


@pytest.mark.parametrize(("max_age", "taken"), [(None, True), (100.0, True), (99.0, False)])
def test_age_counts_from_the_reading(max_age: float | None, taken: bool) -> None:
    book = DarkBook([dark(run_uid="earlier", time=T0)])
    found = book.dark_for(light(), max_age, T0 + 1e6)
    assert bool(found.paths) == taken
    assert taken or "100 s old, dark_max_age is 99 s" in found.facts.note
    assert bool(book.dark_for(light(time=None), max_age, T0 + 50).paths), "without an event, the clock counts"
    own = DarkBook([dark(time=T0 - 1e6)])
    assert own.dark_for(light(), max_age, T0).paths, "a dark of the run itself has no age"


def test_dark_with_a_later_time_is_not_taken() -> None:
    book = DarkBook([dark(run_uid="earlier", time=T0 + 101, order=0)])  # of an earlier session, whose clock was wrong
    assert "is later than the frame" in book.dark_for(light(), 3600.0, T0).facts.note


def test_dark_known_to_fit_is_preferred() -> None:
    certain = dark("/raw/certain.tif", run_uid="1", time=T0)
    vague = dark("/raw/vague.tif", run_uid="2", time=T0 + 10, order=2, settings=replace(PE, exposure_time=None))
    assert DarkBook([certain, vague]).dark_for(light(), None, T0).paths == certain.paths
    assert DarkBook([vague]).dark_for(light(), None, T0).paths == vague.paths


def test_later_dark_serves_a_complete_run_only() -> None:
    book = DarkBook([dark(order=20)])
    assert book.dark_for(light(), None, T0 + 1e6).paths == ()
    found = book.dark_afterwards(light())
    assert found.paths == ("/raw/d.tif",)
    assert "taken after the frame" in found.facts.note
    book.add(dark("/raw/earlier.tif", order=5))
    assert book.dark_afterwards(light()).paths == ("/raw/earlier.tif",)
    assert "no dark of pe in the run" in DarkBook().dark_afterwards(light()).facts.note


@pytest.mark.parametrize("announced_later", [False, True])
def test_dark_event_without_files_is_not_replaced(announced_later: bool) -> None:
    session, setting = Session(), Setting()
    session.start("run")
    dark, primary = (session.describe("run", stream, {"pe": setting}) for stream in ("dark", "primary"))
    session.event(dark, 1, {"pe": ["d1-0.tif"]}, T0)
    session.event(primary, 1, {"pe": ["l1-0.tif"]}, T0)
    late = session.event(dark, 2, {"pe": ["d2-0.tif"]}, T0, announced=False)
    session.event(primary, 2, {"pe": ["l2-0.tif"]}, T0)
    if announced_later:
        session.send(late)
    session.event(primary, 3, {"pe": ["l3-0.tif"]}, T0)
    first, second, third = session.dark_paths()
    assert (first, second) == (("/raw/d1-0.tif",), ())
    assert third == (("/raw/d2-0.tif",) if announced_later else ())
    assert "names no files" in session.found[1][1].facts.note


def test_frame_that_is_found_late_gets_the_dark_before_its_event() -> None:
    session, setting = Session(), Setting()
    session.start("run")
    dark, primary = (session.describe("run", stream, {"pe": setting}) for stream in ("dark", "primary"))
    session.event(dark, 1, {"pe": ["d1-0.tif"]}, T0)
    late = session.event(primary, 1, {"pe": ["l1-0.tif"]}, T0, announced=False)
    session.event(dark, 2, {"pe": ["d2-0.tif"]}, T0)
    session.send(late)
    session.event(primary, 1, {"pe": ["l1-again-0.tif"]}, T0)  # rewound: the same number
    assert session.dark_paths() == [("/raw/d1-0.tif",), ("/raw/d2-0.tif",)]


def test_configuration_may_be_outdated_after_the_second_dark() -> None:
    session, before, after = Session(), Setting(exposure=0.1), Setting(exposure=0.2)
    session.start("run")
    dark, primary = (session.describe("run", stream, {"pe": before}) for stream in ("dark", "primary"))
    for number in (1, 2):
        session.event(dark, number, {"pe": [f"d{number}-0.tif"]}, T0 + number)
        session.event(primary, number, {"pe": [f"l{number}-0.tif"]}, T0 + number)
    assert [dark.outdated for dark in session.darks] == [False, True]
    assert [frame.light.outdated for frame, _ in session.found if frame.light] == [False, True]
    assert session.dark_paths() == [("/raw/d1-0.tif",), ("/raw/d2-0.tif",)], "right within the run"
    assert [found.facts.exposure_time for _, found in session.found] == [0.1, None]
    session.start("next")
    session.event(session.describe("next", "primary", {"pe": before}), 1, {"pe": ["n-0.tif"]}, T0 + 3)
    assert session.dark_paths()[-1] == ("/raw/d1-0.tif",), "nothing is known about the second one"
    session.event(session.describe("run", "primary", {"pe": after}), 3, {"pe": ["l3-0.tif"]}, T0 + 4)
    assert session.dark_paths()[-1] == ()
    assert "may have changed" in session.found[-1][1].facts.note


def test_settings_in_events_are_never_outdated() -> None:
    session, number = Session(), {"source": "test", "dtype": "number", "shape": [], "object_name": "pe"}
    session.start("run")
    uids = [
        session.describe("run", stream, {"pe": Setting()}, pe_cam_acquire_time=number, pe_cam_gain=number)
        for stream in ("dark", "primary")
    ]
    for exposure in (0.1, 0.5):
        for uid in uids:
            session.readings = {"pe_cam_acquire_time": exposure, "pe_cam_gain": 1.0}
            session.event(uid, 1, {"pe": [f"{uid}-{exposure}-0.tif"]}, T0)
    assert [found.facts.exposure_time for _, found in session.found] == [0.1, 0.5]
    assert not any(dark.outdated for dark in session.darks)


def test_repeated_dark_is_the_same_file() -> None:
    book = DarkBook()
    assert book.add(dark())
    assert not book.add(dark(order=2, run_uid="later"))
    found = book.dark_for(light(run_uid="later"), None, T0)
    assert (found.paths, found.facts.run_uid) == (("/raw/d.tif",), "later")


def test_separate_dark_detector_serves_the_named_one() -> None:
    session = Session(FrameSelection(dark_detectors={"pe_dark*": "pe"}))
    session.start("run")
    both = session.describe("run", "primary", {"pe": Setting(), "pe_dark": Setting()})
    session.event(both, 1, {"pe": ["l1-0.tif"], "pe_dark": ["d1-0.tif"]}, T0)
    session.event(both, 2, {"pe": ["l2-0.tif"], "pe_dark": ["d2-0.tif"]}, T0)
    assert [frame.path for frame, _ in session.found] == ["/raw/l1-0.tif", "/raw/l2-0.tif"]
    assert session.dark_paths() == [("/raw/d1-0.tif",), ("/raw/d2-0.tif",)], "that of the same event"
    assert session.found[0][1].facts.note == ""


@pytest.mark.parametrize("excluded", [{"streams": ("primary",)}, {"without_streams": ("dark",)}])
def test_excluded_dark_stream_still_has_the_darks(excluded: dict[str, Any]) -> None:
    session = Session(FrameSelection(**excluded))
    session.start("run")
    dark, primary = (session.describe("run", stream, {"pe": Setting()}) for stream in ("dark", "primary"))
    session.event(dark, 1, {"pe": ["d-0.tif", "d-1.tif"]}, T0)
    session.event(primary, 1, {"pe": ["l-0.tif"]}, T0)
    assert session.dark_paths() == [("/raw/d-0.tif", "/raw/d-1.tif")]


def test_request_has_the_files_and_facts_of_the_dark() -> None:
    session = Session()
    session.start("run")
    for stream, path in (("dark", "d-0.tif"), ("primary", "l-0.tif")):
        session.event(session.describe("run", stream, {"pe": Setting()}), 1, {"pe": [path]}, T0)
    ((frame, found),) = session.found
    request = replace(frame, dark=found).request()
    assert request["recipe"]["corrections"]["dark"] == "/raw/d-0.tif"
    assert request["metadata"][DARK_FACTS] == {"run_uid": "run", "exposure_time": 0.1, "gain": 1.0}
    assert RECIPE == {"corrections": {"dark": "run"}}, "the recipe of the run is not changed"
