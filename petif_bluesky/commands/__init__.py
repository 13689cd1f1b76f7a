"""The `petif` commands that need bluesky, one module each.

Used only by the entry points.
Heavy imports are delayed until a command runs.
"""
