"""Logs and metrics of a server.

Used by application.py, and by the commands for standard error.
Knows nothing of Tango, and never delays a frame.
"""
