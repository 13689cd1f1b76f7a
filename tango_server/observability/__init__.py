"""Logs and metrics of a server.

For application.py, and the commands' standard error.
Never knows Tango, and never makes a frame wait.
"""
