"""Whatever the layout, the links and the texts in a file: pixels equal h5py's, or there is a typed error."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tango_server.conversion.errors import ConversionError
from tango_server.conversion.files.roots import Roots
from tango_server.conversion.hdf5.open_files import close_all
from tests.unit.tango_server.conversion.hdf5.reading import check, read

random_files = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FILTERS: list[dict[str, Any]] = [
    {},
    {"compression": "gzip", "shuffle": True},
    {"fletcher32": True},
    {"compression": "lzf"},
    dict(hdf5plugin.Bitshuffle()),
    dict(hdf5plugin.Bitshuffle(nelems=16, cname="zstd")),
    dict(hdf5plugin.LZ4()),
    dict(hdf5plugin.Blosc()),
]
STATED = (
    "instrument/detector/count_time", "instrument/detector/description", "instrument/detector/beam_center_x",
    "instrument/detector/x_pixel_size", "instrument/detector/bit_depth_image", "instrument/detector/saturation_value",
    "instrument/detector/pixel_mask", "instrument/beam/incident_wavelength", "start_time", "sample/goniometer/omega",
    "sample/goniometer/omega_end", "instrument/NDAttributes/NDArrayUniqueId", "instrument/detector",
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """How a stack of frames is stored."""

    shape: tuple[int, ...]
    pixel_type: str
    chunks: tuple[int, ...] | None
    filters: dict[str, Any]
    links: tuple[str, ...]
    written: int
    threshold: str


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    sides = st.integers(2, 20)
    shape = (*draw(st.lists(st.integers(1, 4), max_size=2)), draw(sides), draw(sides))
    chunked = draw(st.booleans())
    return Layout(
        shape,
        draw(st.sampled_from(["u1", "u2", "i2", ">u4", "i4", "u8", "f4", ">f8", "f2"])),
        tuple(draw(st.integers(1, side)) for side in shape) if chunked else None,
        draw(st.sampled_from(FILTERS)) if chunked else {},
        tuple(draw(st.lists(st.sampled_from(["hard", "soft", "external", "virtual"]), max_size=3))),
        draw(st.integers(0, shape[0])) if len(shape) > 2 else 1,
        "[:,0]" if len(shape) == 4 else "",
    )


values = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
    st.binary(max_size=20).map(lambda content: np.array([content or b"x"])),
    st.floats(),
    st.integers(-(2**63), 2**63 - 1),
    st.lists(st.floats(), min_size=1, max_size=4),
    st.just(h5py.Empty("f8")),
    st.just(h5py.SoftLink("/entry")),
    st.just(h5py.ExternalLink("missing.h5", "/x")),
    st.just(np.zeros((2, 2), [("a", "u2")])),
)


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="petif-") as name:
        yield Path(name)
        close_all()


def written(path: Path, layout: Layout) -> np.ndarray[Any, Any]:
    """Write the frames behind their links, and return what h5py reads there."""
    pixels = np.random.default_rng(1).integers(0, 100, layout.shape).astype(layout.pixel_type)
    name = "place0"
    with h5py.File(path / "file0.h5", "w") as file:
        data = file.create_dataset(name, layout.shape, layout.pixel_type, chunks=layout.chunks, **layout.filters)
        data[: layout.written if len(layout.shape) > 2 else None] = pixels[
            : layout.written if len(layout.shape) > 2 else None
        ]
    last = "file0.h5"
    for number, kind in enumerate([*layout.links, "external"], 1):
        own = f"file{number}.h5" if kind in {"external", "virtual"} else last
        made = "entry/data/data" if number > len(layout.links) else f"place{number}"
        with h5py.File(path / own, "a") as file:
            if kind == "virtual":
                virtual = h5py.VirtualLayout(layout.shape, layout.pixel_type)
                virtual[...] = h5py.VirtualSource(last, name, layout.shape)
                file.create_virtual_dataset(made, virtual)
            elif kind == "hard":
                is_hard = isinstance(file.get(name, getlink=True), h5py.HardLink)
                file[made] = file[name] if is_hard else h5py.SoftLink(f"/{name}")
            else:
                file[made] = h5py.SoftLink(f"/{name}") if kind == "soft" else h5py.ExternalLink(last, name)
        last, name = own, made
    (path / last).rename(path / "run.h5")
    with h5py.File(path / "run.h5", locking=False) as file:
        stored = np.asarray(file["entry/data/data"][()])
    return stored[:, 0] if layout.threshold else stored.reshape(-1, *layout.shape[-2:])


@random_files
@given(layouts())
def test_pixels_of_any_layout_equal_those_of_h5py(layout: Layout) -> None:
    with folder() as path:
        expected = written(path, layout)
        source = f"{path}/run.h5::/entry/data/data{layout.threshold}"
        roots = Roots.of([path])
        assert check(source, None, roots).frames == len(expected)
        for index, image in enumerate(expected):
            state = check(source, index, roots)
            if state.state == "complete":
                np.testing.assert_array_equal(read(source, index, roots).image, image)
            if index < layout.written:
                assert state.state == "complete", state.problem
            elif layout.chunks and layout.chunks[0] == 1:
                assert state.state == "incomplete"


@random_files
@given(st.dictionaries(st.sampled_from(STATED), values, max_size=6))
def test_any_header_gives_pixels_or_a_typed_error(stated: dict[str, Any]) -> None:
    pixels = np.arange(60, dtype="u4").reshape(3, 4, 5)
    with folder() as path:
        with h5py.File(path / "run.h5", "w") as file:
            file["entry/data/data"] = pixels
            for name, value in stated.items():
                if not any(other != name and (other.startswith(name) or name.startswith(other)) for other in stated):
                    file[f"entry/{name}"] = value
        try:
            found = read(path / "run.h5", 1, Roots.of([path]))
        except ConversionError:
            assert "instrument/detector/pixel_mask" in stated or "instrument/detector" in stated
        else:
            np.testing.assert_array_equal(found.image, pixels[1])


links = st.tuples(st.sampled_from(["soft", "a.h5", "b.h5", "../c.h5", "/etc/hostname"]), st.sampled_from("xyzw"))


@random_files
@given(st.dictionaries(st.tuples(st.sampled_from("ab"), st.sampled_from("xyzw")), links, max_size=8))
def test_any_links_end_in_an_answer(made: dict[tuple[str, str], tuple[str, str]]) -> None:
    with folder() as outside:
        path = outside / "inside"
        path.mkdir()
        for name in (path / "a.h5", path / "b.h5", outside / "c.h5"):
            with h5py.File(name, "w") as file:
                file["v"] = np.zeros((2, 3, 4), "u2")
                for (own, place), (kind, target) in made.items():
                    if own == name.stem:
                        way = f"/{target}/v" if target == "w" else f"/{target}"
                        file[place] = h5py.SoftLink(way) if kind == "soft" else h5py.ExternalLink(kind, way)
        roots = Roots.of([path])
        for source in (f"{path}/a.h5", *(f"{path}/a.h5::/{place}" for place in "xyzwv")):
            try:
                state = check(source, 1, roots)
                if state.state == "complete":
                    assert not read(source, 1, roots).image.any()
            except ConversionError:
                pass
        assert check(f"{path}/a.h5::/v", 1, roots).state == "complete"
