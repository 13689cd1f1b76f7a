"""Which masters are in use, and how many frames are overexposed, from the reports of frames."""

from dataclasses import replace
from pathlib import Path

import pytest

from tango_server.jobs.state_machine.events import AttemptDone, Observed, StatisticsReset
from tango_server.jobs.state_machine.machine import JobStateMachine
from tango_server.jobs.state_machine.rules import ServiceRules
from tango_server.messages import CorrectionsInUse, FrameReport, Master, PixelCounts
from tango_server.recipe import Recipe
from tango_server.recipe.corrections import Corrections
from tests.unit.service_events import COMPLETE, LedgerService, at, converted, fetched, job

RECIPE = Recipe(corrections=Corrections(dark="/raw/dark.tif", dark_max_age=600))
DARK = Master(kind="dark", path="/raw/dark.tif", sha256="d", modified=100.0, exposure_time=10.0)
FLAT = Master(kind="flat", path="/raw/flat.tif", sha256="f")


@pytest.fixture
def service() -> JobStateMachine:
    return LedgerService(ServiceRules())


def convert(
    service: JobStateMachine, name: str, *masters: Master, seconds: float = 1.0, folder: str = "/raw", **pixels: int
) -> FrameReport:
    """Have a frame converted with these masters; its data key is the part of `name` before a dash, if it has one."""
    detector, dash, _ = name.rpartition("-")
    metadata: dict[str, object] = {"data_key": detector} if dash else {}
    one = replace(job(name, recipe=RECIPE, metadata=metadata), source=Path(folder, f"{name}.tif"))
    service.handle(fetched((one,)), at(seconds))
    service.handle(Observed(name, COMPLETE), at(seconds))
    report = converted(name).report.model_copy(update={"masters": masters, "pixels": PixelCounts(**pixels)})
    service.handle(AttemptDone(name, report), at(seconds))
    return report


def in_use(service: JobStateMachine) -> dict[str, CorrectionsInUse]:
    return {each.detector: each for each in service.snapshot(at(10_000)).corrections}


def test_masters_of_the_newest_frame_of_each_detector_are_in_use(service: JobStateMachine) -> None:
    convert(service, "pe1-a", FLAT)
    convert(service, "pe1-b", DARK, FLAT, seconds=5, masked=7, overexposed=3)
    convert(service, "pe2-a", DARK, seconds=3)
    found = in_use(service)
    assert found["pe1"] == CorrectionsInUse(
        detector="pe1", finished=at(5).wall, masters=(DARK, FLAT), darks=1, dark_max_age=600, masked=7, overexposed=3
    )
    assert found["pe2"].masters == (DARK,)
    convert(service, "pe1-c", seconds=6)
    assert in_use(service).keys() == {"pe2"}


def test_frames_without_a_data_key_count_by_folder(service: JobStateMachine) -> None:
    convert(service, "a", DARK, folder="/raw/scan1")
    convert(service, "b", FLAT, folder="/raw/scan2")
    assert in_use(service).keys() == {"/raw/scan1", "/raw/scan2"}


def test_of_several_darks_the_oldest_is_kept_with_their_number(service: JobStateMachine) -> None:
    older = DARK.model_copy(update={"path": "/raw/dark2.tif", "modified": 50.0})
    convert(service, "pe1-a", DARK, older, FLAT)
    assert (in_use(service)["pe1"].masters, in_use(service)["pe1"].darks) == ((older, FLAT), 2)


def test_detectors_of_an_hour_ago_are_forgotten_and_there_are_never_many(service: JobStateMachine) -> None:
    convert(service, "old-a", DARK, seconds=1)
    convert(service, "new-a", DARK, seconds=3602)
    assert in_use(service).keys() == {"new"}
    for number in range(40):
        convert(service, f"pe{number}-a", DARK, seconds=3603)
    assert len(in_use(service)) == 16


def test_frames_with_overexposed_pixels_are_counted_since_the_reset(service: JobStateMachine) -> None:
    for name, pixels in (("a", 5), ("b", 0), ("c", 1)):
        convert(service, name, overexposed=pixels)
    convert(service, "d")
    assert service.snapshot(at(2)).overexposed == 2
    service.handle(StatisticsReset(), at(2))
    assert service.snapshot(at(2)).overexposed == 0
