"""How documents say that they are about TIFF files."""

ONE_TIFF = "image/tiff"
MANY_TIFFS = "multipart/related;type=image/tiff"
"""One file for each index, as bluesky and Tiled write it."""
