"""Folders watched by polling: what is new becomes jobs.

For the server and `petif watch`.
Never converts; it submits as any client does.
"""
