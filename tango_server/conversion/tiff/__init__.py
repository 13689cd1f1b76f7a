"""TIFF files: their structure, reading, writing, the record of their making.

For conversion, and for jobs to see whether a file is complete.
Never knows a recipe's meaning beyond what it writes down.
"""
