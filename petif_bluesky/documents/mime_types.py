"""MIME types in documents."""

ONE_TIFF = "image/tiff"
MANY_TIFFS = "multipart/related;type=image/tiff"
"""A sequence of TIFF files, one per index, as in bluesky and Tiled."""
HDF5 = "application/x-hdf5"
