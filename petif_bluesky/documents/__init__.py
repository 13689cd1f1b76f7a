"""Find frames and their metadata in run documents.

Pure functions of documents (dicts), for use anywhere.
Never uses files, clocks, a server, ophyd or a RunEngine.
"""
