"""Image arrays: correcting, turning, casting, counting, block by block.

For conversion and the monitor.
Never opens a file.
"""
