"""One table of the ways in which runs tell of TIFF files, with the frames that each announces.

The expected paths are written out by hand, for frames below a folder that the caller chooses.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.unit.documents import IMAGE, IN_STREAM, NAME, NUMBER, ComposedRun, Document, Recorder

Expected = tuple[str, str, int, int]
"""Path, stream, seq_num, number."""
Table = dict[str, Callable[[str], "Shape"]]

MOTOR: dict[str, Document] = {"position": NUMBER}


@dataclass(frozen=True)
class Shape:
    """Documents in their order, and the frames that they announce, in the order of their announcement."""

    documents: list[tuple[str, Document]]
    expected: list[Expected] = field(default_factory=list)


def _run() -> ComposedRun:
    return ComposedRun(lambda _name, _document: None)


def _shape(run: ComposedRun, *expected: Expected) -> Shape:
    run.stop()
    run.recorder.check()
    return Shape(run.recorder.documents, list(expected))


def resource(folder: str) -> Shape:
    run = _run()
    run.stream(pe={"image": IMAGE}, motor=MOTOR)
    datum = run.resource(root=folder, path="a", template="%s%s_%6.6d.tiff")
    for point in range(2):
        run.event(pe_image=datum(point), motor_position=0.5 * point)
    return _shape(
        run,
        (f"{folder}/a/sample_000000.tiff", "primary", 1, 0),
        (f"{folder}/a/sample_000001.tiff", "primary", 2, 0),
    )


def several_frames_per_point(folder: str) -> Shape:
    run = _run()
    run.stream(pe={"image": {**IMAGE, "shape": [2, 48, 64]}, "full_file_name": NAME})
    datum = run.resource(root=folder, path="n/", frame_per_point=2)
    for point in range(2):
        run.event(pe_image=datum(point), pe_full_file_name=f"{folder}/n/sample-{2 * point + 1:05d}.tif")
    return _shape(
        run,
        (f"{folder}/n/sample-00000.tif", "primary", 1, 0),
        (f"{folder}/n/sample-00001.tif", "primary", 1, 1),
        (f"{folder}/n/sample-00002.tif", "primary", 2, 0),
        (f"{folder}/n/sample-00003.tif", "primary", 2, 1),
    )


def name_taken(folder: str) -> Shape:
    run = _run()
    run.stream(pe={"image": IMAGE, "full_file_name": NAME})
    run.event(pe_image=run.resource(root=folder, path="t")(0), pe_full_file_name=f"{folder}/t/sample-00000-00001.tif")
    return _shape(run, (f"{folder}/t/sample-00000-00001.tif", "primary", 1, 0))


def name_of_the_detector_pc(folder: str) -> Shape:
    run = _run()
    run.stream(pe={"image": IMAGE, "full_file_name": NAME})
    run.event(pe_image=run.resource(root=folder, path="w")(0), pe_full_file_name="X:\\raw\\w\\sample-00000-00001.tif")
    return _shape(run, (f"{folder}/w/sample-00000-00001.tif", "primary", 1, 0))


def read_path_of_a_windows_pc(folder: str) -> Shape:
    """As ophyd tells it with `path_semantics="windows"` and a read path of the bluesky host, which runs Linux."""
    run = _run()
    run.stream(pe={"image": IMAGE, "full_file_name": NAME})
    datum = run.resource(root="/", path=f"{folder}/pc".lstrip("/"), windows=True, template="%s%s_%6.6d.tiff")
    run.event(pe_image=datum(0), pe_full_file_name="Z:\\raw\\pc\\sample_000000.tiff")
    run.event(pe_image=datum(1), pe_full_file_name="")
    return _shape(
        run,
        (f"{folder}/pc/sample_000000.tiff", "primary", 1, 0),
        (f"{folder}/pc/sample_000001.tiff", "primary", 2, 0),
    )


def two_names(folder: str) -> Shape:
    run = _run()
    run.stream(pe={"image": IMAGE, "tiff_full_file_name": NAME, "hdf5_full_file_name": NAME})
    run.event(
        pe_image=run.resource(root=folder, path="two")(0),
        pe_tiff_full_file_name=f"{folder}/two/other.tif",
        pe_hdf5_full_file_name=f"{folder}/two/all.h5",
    )
    return _shape(run, (f"{folder}/two/other.tif", "primary", 1, 0))


def names_only(folder: str) -> Shape:
    run = _run()
    run.stream(pe={"full_file_name": NAME, "comment": NAME})
    for number in (1, 2):
        run.event(pe_full_file_name=f"{folder}/s/by hand #{number}.TIF", pe_comment=f"{folder}/s/not this.tif")
    return _shape(
        run,
        (f"{folder}/s/by hand #1.TIF", "primary", 1, 0),
        (f"{folder}/s/by hand #2.TIF", "primary", 2, 0),
    )


def registry_signal(folder: str) -> Shape:
    run = _run()
    run.stream(img={"image": IMAGE})
    bundle = run._run.compose_resource(spec="AD_TIFF", root=folder, resource_path="stem", resource_kwargs={})
    run._emit("resource", bundle.resource_doc)
    for index in range(2):
        datum = bundle.compose_datum(datum_kwargs={"index": index})
        run._emit("datum", datum)
        run.event(img_image=datum["datum_id"])
    return _shape(run, (f"{folder}/stem_0.tif", "primary", 1, 0), (f"{folder}/stem_1.tif", "primary", 2, 0))


def pages(folder: str) -> Shape:
    source = _run()
    source.stream(pe={"image": IMAGE})
    datum = source.resource(root=folder, path="p")
    for point in range(3):
        source.event(pe_image=datum(point))
    source.stop()
    kept = source.recorder
    target = Recorder()
    for kind in ("start", "descriptor", "resource"):
        target(kind, kept.of(kind)[0])
    carrier = _run()
    carrier.recorder = target
    carrier.page("datum", kept.of("datum"))
    carrier.page("event", kept.of("event"))
    target("stop", kept.of("stop")[0])
    target.check()
    return Shape(
        target.documents, [(f"{folder}/p/sample-{point:05d}.tif", "primary", point + 1, 0) for point in range(3)]
    )


def step_scan_of_streams(folder: str) -> Shape:
    run = _run()
    run.stream(det={"image": IN_STREAM}, motor=MOTOR)
    datum = run.stream_resource("det_image", f"file://localhost{folder}/step/", "det_{:06d}.tiff")
    for point in range(2):
        datum(point, point + 1, seq_num=point + 1)
        run.event(motor_position=float(point))
    return _shape(
        run,
        (f"{folder}/step/det_000000.tiff", "primary", 1, 0),
        (f"{folder}/step/det_000001.tiff", "primary", 2, 0),
    )


def fly_scan(folder: str) -> Shape:
    run = _run()
    run.stream("fly", det={"image": IN_STREAM})
    datum = run.stream_resource("det_image", f"file://localhost{folder}/fly/", "det_{:06d}.tiff")
    datum(0, 3, stream="fly", seq_num=1)
    datum(3, 5, stream="fly", seq_num=4)
    return _shape(run, *((f"{folder}/fly/det_{j:06d}.tiff", "fly", j + 1, 0) for j in range(5)))


def chunks(folder: str) -> Shape:
    run = _run()
    run.stream("fly", det={"image": {**IN_STREAM, "shape": [2, 48, 64]}})
    datum = run.stream_resource("det_image", f"file://localhost{folder}/chunk/", "det_{:d}.tif")
    datum(1, 3, stream="fly", seq_num=2)
    return _shape(
        run,
        (f"{folder}/chunk/det_2.tif", "fly", 2, 0),
        (f"{folder}/chunk/det_3.tif", "fly", 2, 1),
        (f"{folder}/chunk/det_4.tif", "fly", 3, 0),
        (f"{folder}/chunk/det_5.tif", "fly", 3, 1),
    )


def strange_uris(folder: str) -> Shape:
    run = _run()
    run.stream("fly", one={"image": IN_STREAM}, two={"image": IN_STREAM})
    encoded = run.stream_resource("one_image", f"file://localhost{folder}/my%20sample/", "a_{:d}.tiff")
    raw = run.stream_resource("two_image", f"file://localhost{folder}/50% #1?/", "b_{:d}.tiff")
    encoded(0, 1, stream="fly")
    raw(0, 1, stream="fly")
    return _shape(
        run,
        (f"{folder}/my sample/a_0.tiff", "fly", 1, 0),
        (f"{folder}/50% #1?/b_0.tiff", "fly", 1, 0),
    )


def two_detectors_two_streams(folder: str) -> Shape:
    run = _run()
    run.stream("dark", pe1={"image": IMAGE})
    run.stream(pe1={"image": IMAGE, "full_file_name": NAME}, pe2={"image": IMAGE})
    first = run.resource(root=folder, path="d", filename="first")
    second = run.resource(root=folder, path="d", filename="second")
    run.event("dark", pe1_image=first(0))
    run.event(pe1_image=first(1), pe1_full_file_name=f"{folder}/d/first-00001.tif", pe2_image=second(0))
    return _shape(
        run,
        (f"{folder}/d/first-00000.tif", "dark", 1, 0),
        (f"{folder}/d/first-00001.tif", "primary", 1, 0),
        (f"{folder}/d/second-00000.tif", "primary", 1, 0),
    )


def reused_dark(folder: str) -> Shape:
    run = _run()
    run.stream("dark", pe={"image": IMAGE})
    for _ in range(2):
        run.event("dark", pe_image=run.resource(root=folder, path="r", filename="dark")(0))
    return _shape(run, (f"{folder}/r/dark-00000.tif", "dark", 1, 0))


def datum_after_its_event(folder: str) -> Shape:
    source = _run()
    source.stream(pe={"image": IMAGE})
    datum = source.resource(root=folder, path="late")
    for point in range(2):
        source.event(pe_image=datum(point))
    source.stop()
    kept = source.recorder
    order = ("start", "descriptor", "event", "datum", "resource", "stop")
    documents = [(kind, document) for kind in order for document in kept.of(kind)]
    return Shape(documents, [(f"{folder}/late/sample-{j:05d}.tif", "primary", j + 1, 0) for j in range(2)])


def other_formats(folder: str) -> Shape:
    run = _run()
    run.stream(eiger={"image": IMAGE}, pe={"image": IMAGE})
    hdf5 = run.resource(spec="AD_HDF5", root=folder, path="all.h5", template="%s%s_%6.6d.h5")
    run.event(eiger_image=hdf5(0), pe_image=run.resource(root=folder, path="o")(0))
    return _shape(run, (f"{folder}/o/sample-00000.tif", "primary", 1, 0))


def own_outputs(folder: str) -> Shape:
    run = _run()
    run.stream(pe={"image": IMAGE})
    run.stream("converted", converter={"image": IN_STREAM, "output": NAME})
    run.event(pe_image=run.resource(root=folder, path="own")(0))
    datum = run.stream_resource("converter_image", f"file://localhost{folder}/own/", "converted.tif")
    datum(0, 1, stream="converted")
    return _shape(run, (f"{folder}/own/sample-00000.tif", "primary", 1, 0))


SHAPES: Table = {
    build.__name__: build
    for build in (
        resource, several_frames_per_point, name_taken, name_of_the_detector_pc, read_path_of_a_windows_pc,
        two_names, names_only,
        registry_signal, pages, step_scan_of_streams, fly_scan, chunks, strange_uris, two_detectors_two_streams,
        reused_dark, datum_after_its_event, other_formats, own_outputs,
    )
}  # fmt: skip


def described(frames: list[Any]) -> list[Expected]:
    """What the table expects, of frames that were found."""
    return [(frame.path, frame.stream, frame.seq_num, frame.metadata["number"]) for frame in frames]
