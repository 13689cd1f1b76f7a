"""Modules are placed by their translations, or refused."""

from pathlib import Path

import pytest

from tango_server.conversion.errors import UnsupportedImageError
from tango_server.conversion.lambda_detector.layout import Placed, layout_of

REAL = ((0.0, 0.0), (-2.0, 660.0), (-2.0, 1317.0))


def placed(*corners: tuple[float, float], shape: tuple[int, int] = (516, 1554)) -> list[Placed]:
    return [Placed(Path(f"a_m{number}.nxs"), shape, x, y) for number, (x, y) in enumerate(corners, 1)]


def test_lambda_2m_has_the_layout_that_it_states() -> None:
    layout = layout_of(placed(*REAL))
    assert layout.shape == (1833, 1556)
    assert [(rows.start, columns.start) for rows, columns in layout.places] == [(0, 2), (660, 0), (1317, 0)]


def test_distances_are_rounded_alike_on_both_sides_of_zero() -> None:
    halves = [(0.0, float(row)) for row in (-1.5, -0.5, 0.5, 1.5)]
    layout = layout_of(placed(*halves, shape=(1, 4)))
    assert [rows.start for rows, _ in layout.places] == [0, 1, 2, 3]


def test_adjacent_modules_do_not_overlap() -> None:
    assert layout_of(placed((0, 0), (1554, 0), (0, 516))).shape == (1032, 3108)


@pytest.mark.parametrize("corner", [(0.0, 0.0), (1.0, 515.0), (-1553.0, -515.0)])
def test_overlapping_modules_are_refused_by_name(corner: tuple[float, float]) -> None:
    with pytest.raises(UnsupportedImageError, match=r"a_m2\.nxs: .* overlaps that of a_m1\.nxs"):
        layout_of(placed((0, 0), corner))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf"), 1e30, 1e6])
def test_impossible_translations_are_refused_by_name(wrong: float) -> None:
    with pytest.raises(UnsupportedImageError, match=r"a_m3\.nxs: cannot assemble"):
        layout_of(placed((0, 0), (-2, 660), (-2, wrong)))


def test_module_larger_than_any_detector_is_refused() -> None:
    with pytest.raises(UnsupportedImageError, match=r"a_m1\.nxs"):
        layout_of(placed((0, 0), shape=(10**6, 10**6)))
