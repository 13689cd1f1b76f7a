"""Watches folders by polling, and submits new files.

Used by the server and `petif watch`.
Does not convert; it submits like any client.
"""
