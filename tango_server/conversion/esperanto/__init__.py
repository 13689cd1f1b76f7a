"""ESPERANTO frames and their companion files: header, codec, goniometer.

For conversion alone.
Never knows a queue, a request or a server.
"""
