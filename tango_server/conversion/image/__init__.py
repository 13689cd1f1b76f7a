"""Arrays: turned, cast and counted, block by block.

For conversion and the monitor.
Never opens a file.
"""
