"""Frames in HDF5 files."""
