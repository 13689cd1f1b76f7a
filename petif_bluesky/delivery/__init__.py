"""Requests on their way to the server: what a session has counted, and the thread that sends what waits.

The callback puts frames in, the sender takes requests out; nobody else sends.
Never blocks the RunEngine's thread, and knows no document.
"""
