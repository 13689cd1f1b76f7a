"""TIFF files: structure, reading, writing, provenance.

For conversion, and for jobs that check whether a file is complete.
Never interprets a recipe beyond writing it down.
"""
