"""Colour limits for showing an image."""

import numpy as np

from tango_server.conversion.image.pixels import Image

_PERCENTILES = (1.0, 99.8)
_DECADES = 1e-4
_NOTHING_TO_SEE = (1.0, 10.0)


def colour_limits(image: Image) -> tuple[float, float]:
    """Return the lower and upper limit of the colour scale: percentiles, so that hot pixels don't darken the rest.

    The lower one is above 0, for a logarithmic scale.

    >>> colour_limits(np.array([[1.0, 100.0], [np.nan, 50.0]]))[1] > 90
    True
    """
    finite = image[np.isfinite(image)]
    if finite.size == 0:
        return _NOTHING_TO_SEE
    low, high = (float(value) for value in np.percentile(finite, _PERCENTILES))
    if high <= 0:
        return _NOTHING_TO_SEE
    low = max(low, high * _DECADES)
    return low, max(high, low * 1.01)
