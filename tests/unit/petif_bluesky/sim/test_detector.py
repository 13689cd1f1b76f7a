"""The simulated detector under a real RunEngine, its files read by tifffile and ConfigParser."""

import os
import posixpath
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from configparser import ConfigParser
from pathlib import Path

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
import pytest
import tifffile
from bluesky.utils import FailedStatus
from ophyd.sim import SynAxis

from tests.unit.conftest import SHAPE
from tests.unit.documents import Recorder


class Run:
    """The documents of a run as they arrived, and what a client makes of them."""

    def __init__(self, documents):
        self.names = [name for name, _ in documents]
        self.by_name = defaultdict(list)
        for name, document in documents:
            self.by_name[name].append(document)
        self.events = self.by_name["event"]
        self.resources = {document["uid"]: document for document in self.by_name["resource"]}
        self.data = {document["datum_id"]: document for document in self.by_name["datum"]}

    def frames(self, detector="pe"):
        """Return the files that the datum documents of the events lead to."""
        paths = []
        for event in self.events:
            datum = self.data[event["data"][f"{detector}_image"]]
            resource = self.resources[datum["resource"]]
            kwargs = resource["resource_kwargs"]
            directory = posixpath.join(resource["root"], resource["resource_path"], "")
            number = datum["datum_kwargs"]["point_number"]
            paths.append(Path(kwargs["template"] % (directory, kwargs["filename"], number)))
        return paths

    def column(self, key):
        return [event["data"][key] for event in self.events]


def take(engine, plan):
    """Run a plan and return its documents, having seen that nobody changed one after it was emitted."""
    recorder = Recorder()
    engine(plan, recorder)
    recorder.check()
    return Run(recorder.documents)


def sidecar_of(frame):
    parser = ConfigParser(interpolation=None, strict=False)
    parser.read_string(frame.with_name(f"{frame.name}.metadata").read_bytes().decode("latin-1"))
    return parser


def expose(detector):
    detector.stage()
    detector.trigger().wait(10)


def test_count_leaves_frame_sidecar_and_documents_for_each_event(run_engine, make_detector, tmp_path):
    run = take(run_engine, bp.count([make_detector()], num=3))
    frames = run.frames()
    assert [frame.name for frame in frames] == [f"sample_0001-{number:05d}.tif" for number in range(3)]
    assert set((tmp_path / "raw" / "sample").iterdir()) == {
        path for frame in frames for path in (frame, frame.with_name(f"{frame.name}.metadata"))
    }
    assert run.column("pe_full_file_name") == [str(frame) for frame in frames]
    for number, (frame, total) in enumerate(zip(frames, run.column("pe_stats_total"), strict=True)):
        with tifffile.TiffFile(frame) as tiff:
            assert tiff.pages[0].tags["DocumentName"].value == frame.as_posix()
            assert tiff.asarray().sum(dtype=float) == pytest.approx(total)
            assert tiff.asarray().shape == SHAPE
        metadata = sidecar_of(frame)["metadata"]
        assert metadata["fileName"] == frame.as_posix()
        assert metadata["imageNumber"] == str(number)
    first, second, _ = map(tifffile.imread, frames)
    assert np.mean(first == second) < 0.05
    assert [name for name in run.names if name not in {"start", "stop"}] == [
        "descriptor", "resource", "datum", "event", "datum", "event", "datum", "event",
    ]  # fmt: skip
    assert len(run.data) == 3
    (resource,) = run.resources.values()
    assert [datum["datum_id"] for datum in run.by_name["datum"]] == [f"{resource['uid']}/{n}" for n in range(3)]


def test_resource_is_like_that_of_area_detector(run_engine, make_detector, tmp_path):
    run = take(run_engine, bp.count([make_detector(file_name="CeO2")]))
    (resource,) = run.resources.values()
    assert resource["spec"] == "AD_TIFF"
    assert resource["resource_kwargs"] == {
        "template": "%s%s-%5.5d.tif",
        "filename": "CeO2_0001",
        "frame_per_point": 1,
    }
    assert Path(resource["root"], resource["resource_path"]) == tmp_path / "raw" / "sample"
    assert not resource["resource_path"].endswith(("/", "\\"))
    assert resource["path_semantics"] == ("windows" if os.name == "nt" else "posix")


@pytest.mark.parametrize(("pixel_type", "stored"), [("float32", "<f4"), ("uint16", "<u2"), ("uint32", "<u4")])
def test_descriptor_describes_what_is_in_the_file(pixel_type, stored, run_engine, make_detector):
    run = take(run_engine, bp.count([make_detector(pixel_type=pixel_type)]))
    (descriptor,) = run.by_name["descriptor"]
    keys = descriptor["data_keys"]
    assert {key: value["dtype"] for key, value in keys.items()} == {
        "pe_image": "array",
        "pe_full_file_name": "string",
        "pe_stats_total": "number",
    }
    assert keys["pe_image"]["shape"] == [1, *SHAPE]
    assert keys["pe_image"]["external"] == "FILESTORE:"
    assert keys["pe_image"]["dtype_numpy"] == stored
    assert {value["object_name"] for value in keys.values()} == {"pe"}
    assert descriptor["hints"] == {"pe": {"fields": ["pe_stats_total"]}}
    assert tifffile.imread(run.frames()[0]).dtype == np.dtype(stored)


def test_configuration_matches_the_sidecar(run_engine, make_detector):
    detector = make_detector(exposure_time=0.01)
    detector.beam_center_x.put(20.5)
    detector.distance.put(33.25)
    run = take(run_engine, bp.count([detector]))
    configuration = run.by_name["descriptor"][0]["configuration"]["pe"]
    values, keys = configuration["data"], configuration["data_keys"]
    sidecar = sidecar_of(run.frames()[0])
    assert sidecar.getfloat("metadata", "exposureTime") == values["pe_exposure_time"] == 0.01
    assert sidecar.getfloat("centerfinder", "centerX") == values["pe_beam_center_x"] == 20.5
    assert sidecar.getfloat("centerfinder", "centerY") == values["pe_beam_center_y"]
    assert sidecar.getfloat("centerfinder", "detectorDistance") == values["pe_distance"] == 33.25
    assert sidecar.getfloat("centerfinder", "detectorXPixelSize") == values["pe_pixel_size"] == 200
    assert sidecar.getfloat("centerfinder", "energy") == values["pe_energy"]
    assert values["pe_wavelength"] == pytest.approx(12398.42 / values["pe_energy"])
    units = {key: value["units"] for key, value in keys.items() if "units" in value}
    assert units == {
        "pe_exposure_time": "s",
        "pe_beam_center_x": "pixel",
        "pe_beam_center_y": "pixel",
        "pe_distance": "mm",
        "pe_pixel_size": "um",
        "pe_energy": "eV",
        "pe_wavelength": "angstrom",
    }


def test_beam_stop_follows_the_beam_center(run_engine, make_detector):
    detector = make_detector(shape=(256, 256))
    detector.beam_center_x.put(180)
    detector.beam_center_y.put(70)
    image = tifffile.imread(take(run_engine, bp.count([detector])).frames()[0])
    assert abs(np.median(image[67:74, 177:184])) < 3


def test_exposure_takes_the_exposure_time(make_detector):
    detector = make_detector(exposure_time=0.05)
    detector.stage()
    begun = time.monotonic()
    detector.trigger().wait(10)
    assert time.monotonic() - begun >= 0.05


def test_scan_moves_the_rings(run_engine, make_detector):
    motor = SynAxis(name="motor")
    detector = make_detector(shape=(256, 256), motor=motor)
    run = take(run_engine, bp.scan([detector], motor, -8, 8, 5))
    radii = [ring_radius(tifffile.imread(frame), detector.pattern.center) for frame in run.frames()]
    np.testing.assert_allclose(np.divide(radii, radii[2]), 1 + 0.1 * np.tanh(0.1 * np.linspace(-8, 8, 5)), atol=0.02)


def ring_radius(image, center):
    """Return the mean radius in pixels of the light in and around the second ring from inside."""
    rows, columns = np.indices(image.shape)
    radius = np.hypot(columns - center[0], rows - center[1])
    shells = np.arange(20, 40, 0.25)
    return shells[int(np.argmax([np.median(image[np.abs(radius - shell) < 0.5]) for shell in shells]))]


def test_second_run_has_new_names(run_engine, make_detector):
    detector = make_detector()
    (first,) = take(run_engine, bp.count([detector])).frames()
    before = first.read_bytes()
    (second,) = take(run_engine, bp.count([detector])).frames()
    (third,) = take(run_engine, bp.count([make_detector()])).frames()
    assert [path.name for path in (second, third)] == ["sample_0002-00000.tif", "sample_0003-00000.tif"]
    assert first.read_bytes() == before
    assert tifffile.imread(first).tobytes() != tifffile.imread(second).tobytes()


def test_run_number_is_the_first_unused(make_detector, tmp_path):
    directory = tmp_path / "raw" / "sample"
    directory.mkdir(parents=True)
    for name in ("sample_0001-00000.tif", "sample_0003-00000.tif", "sample_0002.txt", "other_0004-00000.tif"):
        (directory / name).touch()
    detector = make_detector()
    expose(detector)
    assert Path(detector.full_file_name.get()).name == "sample_0004-00000.tif"


def test_two_detectors_in_one_directory_share_no_name(run_engine, make_detector):
    detectors = [make_detector("pe"), make_detector("pe2", seed=1)]
    run = take(run_engine, bp.count(detectors, num=3))
    frames = [*run.frames("pe"), *run.frames("pe2")]
    assert len(set(frames)) == 6
    assert [str(frame) for frame in frames] == run.column("pe_full_file_name") + run.column("pe2_full_file_name")
    for frame, total in zip(frames, run.column("pe_stats_total") + run.column("pe2_stats_total"), strict=True):
        assert tifffile.imread(frame).sum(dtype=float) == pytest.approx(total)


def test_existing_file_is_kept_and_the_new_name_reported(make_detector, tmp_path):
    detector = make_detector()
    detector.stage()
    taken = tmp_path / "raw" / "sample" / "sample_0001-00000.tif"
    taken.write_bytes(b"precious")
    detector.trigger().wait(10)
    written = Path(detector.read()["pe_full_file_name"]["value"])
    assert written == taken.with_name("sample_0001-00000-00001.tif")
    assert tifffile.imread(written).shape == SHAPE
    assert sidecar_of(written)["metadata"]["title"] == written.name
    assert taken.read_bytes() == b"precious"


def test_trigger_may_finish_before_the_file(run_engine, make_detector):
    detector = make_detector(write_delay=0.6)
    run = take(run_engine, bp.count([detector], num=2))
    frames = run.frames()
    with pytest.raises(TimeoutError):
        detector.wait_written(0)
    assert not frames[-1].exists()
    detector.wait_written(20)
    for frame, total in zip(frames, run.column("pe_stats_total"), strict=True):
        assert tifffile.imread(frame).sum(dtype=float) == pytest.approx(total)
        assert sidecar_of(frame)["metadata"]["fileBase"] == frame.name


def test_name_is_reserved_until_a_late_file_is_written(make_detector):
    first, second = make_detector(write_delay=0.25), make_detector("pe2")
    names = []
    for detector in (first, second):
        expose(detector)
        detector.unstage()
        names.append(Path(detector.full_file_name.get()).name)
    assert names == ["sample_0001-00000.tif", "sample_0002-00000.tif"]
    first.wait_written(20)


def test_number_of_an_empty_run_is_reused(make_detector):
    detector = make_detector()
    for _ in range(3):
        detector.stage()
        detector.unstage()
    expose(detector)
    assert Path(detector.full_file_name.get()).name == "sample_0001-00000.tif"
    detector.unstage()
    assert list(detector.collect_asset_docs()) == []
    with pytest.raises(RuntimeError, match="Call stage first"):
        detector.trigger()


def test_several_triggers_can_be_read_later(run_engine, make_detector):
    detector = make_detector()

    def plan():
        yield from bps.stage(detector)
        yield from bps.open_run()
        for _ in range(2):
            yield from bps.trigger(detector, wait=True)
        yield from bps.create()
        yield from bps.read(detector)
        yield from bps.save()
        yield from bps.close_run()
        yield from bps.unstage(detector)

    run = take(run_engine, plan())
    assert len(run.data) == 2
    assert run.column("pe_full_file_name") == [str(path) for path in run.frames()]
    assert run.frames()[0].name == "sample_0001-00001.tif"


def test_missing_disk_fails_the_plan_or_is_reported_later(run_engine, make_detector, tmp_path):
    detector = make_detector()

    def plan():
        yield from bps.stage(detector)
        shutil.rmtree(tmp_path / "raw")
        yield from bps.trigger(detector, wait=True)

    with pytest.raises(FailedStatus) as failure:
        run_engine(plan())
    assert isinstance(failure.value.__cause__, FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        detector.wait_written(10)
    detector.wait_written(0)
    late = make_detector(write_delay=0.2)
    expose(late)
    late.unstage()
    shutil.rmtree(tmp_path / "raw")
    with pytest.raises(FileNotFoundError):
        late.wait_written(10)


@pytest.mark.parametrize("file_name", ["sub/sample", "../sample", ""])
def test_a_file_name_with_a_directory_is_refused(file_name, make_detector):
    detector = make_detector(file_name=file_name)
    with pytest.raises(ValueError, match="file_name"):
        detector.stage()
    detector.file_name.put("sample")
    detector.stage()


def test_pixel_types_that_qxrd_does_not_save_are_refused(make_detector):
    with pytest.raises(ValueError, match="float64"):
        make_detector(pixel_type="float64")


def test_writing_files_needs_no_ophyd():
    code = (
        "import sys; import petif_bluesky.sim, petif_bluesky.sim.qxrd_file, petif_bluesky.sim.pattern;"
        "print(*{'ophyd', 'ophyd_async', 'bluesky', 'event_model'} & set(sys.modules))"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == ""


def test_frames_are_dark_while_the_shutter_is_closed(run_engine, make_detector):
    detector = make_detector(pixel_type="uint16")

    def plan():
        yield from bps.mv(detector.shutter, "closed")
        yield from bp.count([detector])
        yield from bps.mv(detector.shutter, "open")
        yield from bp.count([detector])

    recorder = Recorder()
    run_engine(plan(), recorder)
    dark, light = (tifffile.imread(name) for name in Run(recorder.documents).column("pe_full_file_name"))
    assert np.percentile(dark, 99) < 2010 < np.median(light)
    assert (
        "16 Bit Raw Data"
        in sidecar_of(Path(Run(recorder.documents).column("pe_full_file_name")[0]))["metadata"].values()
    )
    with pytest.raises(ValueError, match="ajar"):
        detector.shutter.put("ajar")
