"""ESPERANTO frames indexed by ImageD11: nothing but the files, read by fabio, goes in.

ImageD11 (J. P. Wright, ESRF) has its own geometry: x along the beam, z up, and omega right-handed about z. CrysAlis
counts omega clockwise seen from above, and has row 0 at the bottom and column 0 at the left, seen from the sample (as
dxtbx reads its frames). So ImageD11's omega is the other's negative, and its standard detector orientation fits.
"""

import contextlib
import io
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import fabio
import numpy as np

multiprocessing.set_start_method("spawn", force=True)  # ImageD11 warns of any other when it is imported

_THRESHOLD = 60.0
_TOLERANCE = 0.08
_RINGS = 12
_ENOUGH = 0.9


@dataclass(frozen=True)
class Indexed:
    """How many spots were found, how many of them have whole indices, and the refined cell."""

    spots: int
    indexed: int
    cell: tuple[float, ...]


def index_frames(paths: Sequence[Path], cell: tuple[float, ...], circle: str = "om") -> Indexed:
    """Find the spots of a scan and index them on a lattice of known cell and unknown orientation."""
    frames = [fabio.open(str(path)) for path in paths]
    header = frames[0].header
    centers = np.array([(frame.header[f"d{circle}_s"] + frame.header[f"d{circle}_e"]) / 2 for frame in frames])
    spots = _spots(np.stack([frame.data for frame in frames]))
    omega = -np.interp(spots[:, 0], np.arange(len(frames)), centers)
    vectors = _vectors(spots[:, 1], spots[:, 2], omega, header)
    return _indexed(vectors, cell, header["dalpha1"])


def _spots(stack: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the centres (frame, row, column) of the spots that do not touch the ends of the scan."""
    from scipy import ndimage

    bright = np.nonzero(stack > _THRESHOLD)
    labels, count = ndimage.label(stack > _THRESHOLD, np.ones((3, 3, 3)))
    weights, label = stack[bright], labels[bright]
    totals = np.bincount(label, weights)[1:]
    centers = [np.bincount(label, weights * place)[1:] / totals for place in bright]
    objects = ndimage.find_objects(labels)
    whole = [
        number
        for number, (frames, _, _) in zip(range(count), objects, strict=True)
        if frames.start > 0 and frames.stop < len(stack) and frames.stop - frames.start > 1
    ]
    return np.stack(centers, axis=1)[whole]


def _vectors(rows: Any, columns: Any, omega: Any, header: Any) -> np.ndarray[Any, Any]:
    from ImageD11 import transform

    place = transform.compute_xyz_lab(
        [rows, columns],
        y_center=header["dxorigininpix"],
        y_size=header["drealpixelsizex"],
        z_center=header["dyorigininpix"],
        z_size=header["drealpixelsizey"],
        distance=header["ddistanceinmm"],
    )
    tth, eta = transform.compute_tth_eta_from_xyz(place, omega)
    return np.array(transform.compute_g_vectors(tth, eta, omega, header["dalpha1"])).T


def _indexed(vectors: np.ndarray[Any, Any], cell: tuple[float, ...], wavelength: float) -> Indexed:
    from ImageD11 import indexing, unitcell

    best = Indexed(len(vectors), 0, ())
    with contextlib.redirect_stdout(io.StringIO()):  # it talks
        search = indexing.indexer(
            unitcell=unitcell.unitcell(list(cell), "P"),
            gv=vectors,
            wavelength=wavelength,
            cosine_tol=-0.01,  # a negative one has it try every pair within
            minpks=len(vectors) // 5,
            hkl_tol=2 * _TOLERANCE,  # two spots alone orient a lattice roughly
            ds_tol=0.006,
            max_grains=1,
        )
        search.assigntorings()
        for rings in combinations_with_replacement(range(_RINGS), 2):
            found = _by_rings(search, rings)
            if found is not None and found.indexed > best.indexed:
                best = found
            if best.indexed > _ENOUGH * best.spots:
                break
    return best


def _by_rings(search: Any, rings: tuple[int, int]) -> Indexed | None:
    """Return what comes of the orientations that pairs of spots on two rings suggest."""
    from ImageD11 import indexing

    search.ubis, search.scores = [], []
    search.ga[:] = -1  # no spot belongs to a crystal yet
    search.hits = []
    search.ring_1, search.ring_2 = rings
    search.find()
    search.scorethem()
    if not search.ubis:
        return None
    matrix = search.ubis[0]
    for _ in range(5):
        matrix = indexing.refine(matrix, search.gv, _TOLERANCE)
    distances = np.sqrt(indexing.calc_drlv2(matrix, search.gv))
    indexed = int((distances < _TOLERANCE).sum())
    return Indexed(len(search.gv), indexed, tuple(map(float, indexing.ubitocellpars(matrix))))
