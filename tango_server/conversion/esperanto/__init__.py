"""ESPERANTO frames and the files beside them: header, codec, geometry of the goniometer.

For conversion alone.
Never knows a queue, a request or a server.
"""
