"""The simulated image against Bragg's law and counting statistics."""

import math

import numpy as np
import pytest

from petif_bluesky.sim.pattern import Pattern

SHAPE = (512, 512)
CENTER = (276.0, 220.0)
RIGHT_OF_CENTER = np.s_[80:180, 100:200]


def make(**changes):
    values = {"shape": SHAPE, "center": CENTER, "distance": 125.0, "energy": 42_700.0}
    return Pattern(**{**values, **changes})


def innermost_ring(image, center, below):
    """Return the radius in pixels at which the azimuthal median is highest, up to the radius `below`."""
    rows, columns = np.indices(image.shape)
    radius = np.hypot(columns - center[0], rows - center[1])
    shells = np.arange(20, below, 0.5)
    medians = [np.median(image[np.abs(radius - shell) < 0.5]) for shell in shells]
    return shells[int(np.argmax(medians))]


def bragg(spacing, energy, distance, pixel_size=0.2):
    """Return the radius in pixels of a ring, all lengths in mm but the spacing in Angstrom."""
    angle = 2 * math.asin(12398.42 / energy / (2 * spacing))
    return distance * math.tan(angle) / pixel_size


@pytest.mark.parametrize(("energy", "distance"), [(42_700.0, 125.0), (60_000.0, 200.0), (25_600.0, 100.0)])
def test_first_ring_has_the_bragg_angle_of_ceo2_111(energy, distance):
    image = make(energy=energy, distance=distance).frame()
    expected = bragg(3.1244, energy, distance)
    assert innermost_ring(image, CENTER, expected * 1.1) == pytest.approx(expected, abs=1)


def test_rings_move_with_the_position():
    pattern = make()
    at_rest = bragg(3.1244, 42_700.0, 125.0)
    radii = [innermost_ring(pattern.frame(0, position), CENTER, at_rest * 1.1) for position in (-4.0, 0.0, 4.0)]
    np.testing.assert_allclose(radii, np.multiply(at_rest, [0.962, 1, 1.038]), atol=1)


def test_rings_stay_on_the_panel_at_any_position():
    pattern = make()
    for position in (-1e6, 1e6):
        assert 0.89 < pattern.radii(position)[0] / pattern.radii()[0] < 1.11


def test_same_arguments_give_the_same_pixels():
    np.testing.assert_array_equal(make(seed=7).frame(3, 0.5), make(seed=7).frame(3, 0.5))


@pytest.mark.parametrize("other", [make(seed=7).frame(4), make(seed=8).frame(3)], ids=["index", "seed"])
def test_another_index_or_seed_gives_other_noise(other):
    assert np.mean(make(seed=7).frame(3) == other) < 0.01


def test_frame_can_be_modified_by_the_caller():
    pattern = make()
    first = pattern.frame()
    untouched = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(pattern.frame(), untouched)


def test_noise_is_poisson_noise():
    pattern = make(shape=(200, 200), center=(76.0, 60.0))
    frames = np.stack([pattern.frame(index)[RIGHT_OF_CENTER] for index in range(200)])
    mean, deviation = frames.mean(axis=0), frames.std(axis=0)
    good = (mean > 50) & (mean < 5000) & (deviation > 0)
    assert good.mean() > 0.99
    read_noise = deviation[good] - np.sqrt(mean[good])
    assert np.median(read_noise) == pytest.approx(1.5, abs=0.3)


@pytest.fixture(scope="module")
def image():
    image = make().frame()
    image.flags.writeable = False
    return image


def test_frame_has_no_symmetry(image):
    image = np.clip(image, 0, 1500)
    turned = [np.rot90(flipped, k) for flipped in (image, np.flip(image, 1)) for k in range(4)]
    correlations = [np.corrcoef(image.ravel(), other.ravel())[0, 1] for other in turned]
    assert correlations[0] == pytest.approx(1)
    assert max(correlations[1:]) < 0.5


def test_the_mark_is_an_f_in_the_first_corner(image):
    drawn = np.array([[np.median(image[r : r + 12, c : c + 12]) for c in range(12, 72, 12)] for r in range(12, 96, 12)])
    strokes = ["#####", "#....", "#....", "####.", "#....", "#....", "#...."]
    expected = np.array([[cell == "#" for cell in row] for row in strokes])
    np.testing.assert_array_equal(drawn > 200, expected)


def test_right_is_bright_and_beam_stop_and_arm_are_dark(image):
    assert np.median(image[:, -50:]) > 2 * np.median(image[:, :50])
    x, y = map(round, CENTER)
    assert abs(np.median(image[y - 8 : y + 9, x - 8 : x + 9])) < 1
    assert abs(np.median(image[round(y - 0.1 * 150), x - 152 : x - 148])) < 5
    assert np.median(image[round(y + 0.1 * 150), x + 148 : x + 152]) > 50


def test_subtracted_frames_have_negative_dead_and_hot_pixels(image):
    assert image.dtype == np.float32
    assert np.isfinite(image).all()
    assert image.min() < -10
    assert (image == 0).any()
    assert (image > 65535).any()


def test_bad_pixels_are_the_same_in_each_frame():
    pattern = make()
    first, second = pattern.frame(0), pattern.frame(1, 2.0)
    for bad in (first > 65535, first < -20):
        assert bad.any()
        np.testing.assert_array_equal(first[bad], second[bad])


def test_raw_frames_include_the_dark_level():
    subtracted, raw16, raw32 = (make(pixel_type=name).frame() for name in ("float32", "uint16", "uint32"))
    assert (raw16.dtype, raw32.dtype) == (np.uint16, np.uint32)
    assert raw16.max() == 65535
    assert raw32.max() > 65535
    assert (raw16 == 0).any()
    ordinary = (subtracted > 1) & (subtracted < 60_000)
    np.testing.assert_allclose(raw32[ordinary] - subtracted[ordinary], 2000, atol=1)
    np.testing.assert_array_equal(raw16[ordinary], raw32[ordinary])


@pytest.mark.parametrize("shape", [(64, 64), (100, 300), (300, 65), (2048, 64)])
def test_any_shape(shape):
    image = make(shape=shape, center=(0.54 * shape[1], 0.46 * shape[0])).frame()
    assert image.shape == shape
    assert image.flags.c_contiguous
    assert np.ptp(image) > 1000


def test_beam_may_miss_the_panel():
    image = make(center=(-100.0, 700.0)).frame()
    assert np.isfinite(image).all()
    assert np.median(image) > 10


@pytest.mark.parametrize("pixel_type", ["uint16", "uint32"])
def test_raw_frame_minus_dark_is_the_subtracted_frame(pixel_type):
    subtracted = make().frame()
    raw = make(pixel_type=pixel_type)
    corrected = raw.frame().astype(float) - raw.dark(9)
    ordinary = (subtracted > -300) & (subtracted < 60_000)
    np.testing.assert_allclose(corrected[ordinary], subtracted[ordinary], atol=10)  # the dark's noise
    hot = subtracted > 65_535
    assert hot.any()
    assert (corrected[hot] == 0).all()
    assert (raw.dark()[hot] >= 65_535).all()


def test_dark_of_a_subtracting_detector_is_noise_around_0():
    dark = make().dark()
    assert dark.dtype == np.float32
    assert abs(np.median(dark)) < 0.1
    assert 1 < np.percentile(dark, 84) < 2


@pytest.mark.parametrize(("spot", "full"), [(0.0, 0), (30_000.0, 0), (150_000.0, 9)])
def test_strong_spot_saturates_uint16(spot, full):
    shown = make(pixel_type="uint16", spot=spot).frame()
    around = shown[384 - 20 : 384 + 20, 410 - 20 : 410 + 20]
    assert np.count_nonzero(around == 65_535) == full
    assert around.max() == min(around.max(), 65_535) > spot * 0.4
